"""What a request and an answer may hold: marshmallow schemas, of which the OpenAPI document is made too.

May import `domain` and `errors`.
"""

import re
from typing import Any

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, post_dump
from marshmallow.validate import Length, OneOf, Regexp

from app.domain.address import MAX_LENGTH, Address
from app.domain.locale import MAX_TAG_LENGTH, is_tag
from app.domain.registration import USER_ID, Delivery, rfc3339
from app.domain.report import ReportKind
from app.errors import PROBLEMS, InvalidAddress

MAX_TOKEN_LENGTH = 4096
MAX_MESSAGE_ID_LENGTH = 998
"""A line of a header (RFC 5322 §2.1.1)."""

REPORTED = (ReportKind.BOUNCED, ReportKind.COMPLAINED, ReportKind.DELIVERED)
REPORT_CODE = r"^([0-9]{3}|[0-9](\.[0-9]{1,3}){2})$(?!\n)"
"""Some providers have codes of their own, such as 605. To Python, `$` stands before a last line end, too."""

SURROGATE = re.compile("[\ud800-\udfff]")
IDEMPOTENCY_KEY_PATTERN = "^[!-~]([ -~]{0,253}[!-~])?$"
"""Visible ASCII, at most 255: a UUID, quoted or not, is what clients send."""

WITHOUT_NUL = r"^[^\u0000]*$"
EMAIL = {"maxLength": MAX_LENGTH, "format": "email", "examples": ["ada@example.com"]}
ID = {"pattern": f"^{USER_ID}$", "description": "Always the same for the same address."}


class Text(fields.String):
    """A string that every store and every mail can carry: no NUL, no lone surrogate (RFC 8259 §8.2)."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if "\0" in text or (not text.isascii() and SURROGATE.search(text)):
            raise ValidationError("Must not hold NUL or a lone surrogate.")
        return text


class EmailAddress(Text):
    """An e-mail address; becomes an `Address`."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        try:
            return Address.parse(super()._deserialize(value, attr, data, **kwargs))
        except InvalidAddress as error:
            raise ValidationError(str(error)) from error


class Moment(fields.DateTime):
    """Unix time in ms, shown as RFC 3339."""

    def _serialize(self, value: Any, attr: Any, obj: Any, **kwargs: Any) -> str | None:  # noqa: ARG002
        return None if value is None else rfc3339(value)


def _is_tag(text: str) -> None:
    if not is_tag(text):
        raise ValidationError("Must be a BCP 47 language tag, such as es or es-MX.")


class Body(Schema):
    """What a request holds: unknown members are refused, and OpenAPI says so."""

    class Meta:
        unknown = RAISE


class RegistrationRequest(Body):
    """The address to confirm, and what to hand out for it."""

    email = EmailAddress(required=True, metadata=EMAIL)
    token = Text(
        required=True,
        validate=Length(1, MAX_TOKEN_LENGTH),
        metadata={
            "description": "Your own data, which comes back when the number is handed in; no credential of "
            "this service. No NUL, no lone surrogate.",
            "pattern": WITHOUT_NUL,
            "examples": ["order 4711, basket 3"],
        },
    )
    locale = Text(
        validate=_is_tag,
        metadata={
            "description": "A BCP 47 tag: the language of the mail. What there is no mail for falls back: "
            "`es-MX` to `es`, and that to the language of the service.",
            "maxLength": MAX_TAG_LENGTH,
            "examples": ["es-MX"],
        },
    )


class Answer(Schema):
    """What an answer holds. Answers may grow: OpenAPI forbids no further members."""

    class Meta:
        unknown = EXCLUDE


class RegistrationAnswer(Answer):
    """A registration that is stored. Neither the number nor the token is in it."""

    id = fields.String(required=True, attribute="user_id", metadata=ID)
    email = fields.String(required=True)
    status = fields.Constant("registered", required=True, metadata={"type": "string", "enum": ["registered"]})
    delivery = fields.String(required=True, validate=OneOf([Delivery.SENT, Delivery.PENDING]))
    created_at = Moment(required=True, attribute="created_ms")
    expires_at = Moment(
        attribute="expires_ms",
        metadata={"description": "When the number stops working; missing where it has no end."},
    )


class VerificationRequest(Body):
    """The address, and the number as the person typed it."""

    email = EmailAddress(required=True, metadata=EMAIL)
    number = Text(
        required=True,
        metadata={
            "description": "As the person typed or pasted it: spaces, dashes, dots and line ends do not "
            "count, and decimal digits of every script do. NUMBER_DIGITS digits, the last one a check digit: "
            "a typing error is `mistyped-number` and costs no try.",
            "examples": ["482 109 3753"],
        },
    )


class VerificationAnswer(Answer):
    """What was registered. The registration is consumed: this answer is given once, and again only to the
    same `Idempotency-Key`."""

    id = fields.String(required=True, metadata=ID)
    email = fields.String(required=True)
    token = fields.String(required=True)


class UserAnswer(RegistrationAnswer):
    """What is known of a registration; what is not known is missing."""

    delivery = fields.String(
        required=True, validate=OneOf([each for each in Delivery if each is not Delivery.REFUSED])
    )
    mailed_at = Moment(
        attribute="mailed_ms", metadata={"description": "When the mail server accepted the mail."}
    )
    mail_attempts = fields.Integer(required=True, attribute="attempts", metadata={"minimum": 0})
    reported_at = Moment(
        attribute="reported_ms",
        metadata={
            "description": "When the mail was reported to have come back for good (`bounced`), or to be "
            "unwanted (`complained`).",
        },
    )
    mail_error = fields.String(
        attribute="error",
        metadata={"description": "What became of the last attempt, as the mail server's code or in a word."},
    )

    @post_dump
    def without_unknown(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {name: value for name, value in data.items() if value is not None}


class ReportRequest(Body):
    """What became of one mail."""

    kind = fields.String(required=True, validate=OneOf(REPORTED))
    code = fields.String(
        validate=Regexp(REPORT_CODE),
        metadata={
            "description": "What the mail server said: a status (RFC 3463) or the code of its reply. "
            "`bounced` with 552, 5.2.2, 5.3.x, 5.7.x, or what does not begin with 5, is only noted.",
            "examples": ["5.1.1"],
        },
    )


class ReportByTag(ReportRequest):
    """What became of the mail with this tag."""

    tag = Text(
        required=True,
        validate=Length(1, MAX_MESSAGE_ID_LENGTH),
        metadata={
            "description": "What stands behind the `+` of the envelope sender, or all of that.",
            "pattern": WITHOUT_NUL,
        },
    )


class ReportByMessageId(ReportRequest):
    """What became of the mail with this Message-ID."""

    message_id = Text(
        required=True,
        validate=Length(1, MAX_MESSAGE_ID_LENGTH),
        metadata={"description": "With or without its brackets.", "pattern": WITHOUT_NUL},
    )


class MailAnswer(Answer):
    """The mail of a test service, as the person would get it."""

    to = fields.String(required=True)
    sender = fields.String(required=True, data_key="from")
    subject = fields.String(required=True)
    text = fields.String(required=True)
    html = fields.String(required=True)
    number = fields.String(required=True, metadata={"pattern": "^[0-9]+$"})
    locale = fields.String(required=True, metadata={"description": "The language that the mail has."})


class ProblemAnswer(Answer):
    """An RFC 9457 problem."""

    type = fields.String(
        required=True,
        validate=OneOf([problem.type for problem in PROBLEMS.values()]),
        metadata={
            "format": "uri-reference",
            "description": "Its page.",
            # generators of clients make constants of these names; of the values they can make none
            "x-enum-varnames": [slug.upper().replace("-", "_") for slug in PROBLEMS],
        },
    )
    title = fields.String(required=True)
    status = fields.Integer(required=True, metadata={"minimum": 400, "maximum": 599})
    detail = fields.String(required=True)
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata={"description": "For `invalid-request`: what is wrong with which field."},
    )
    tries_left = fields.Integer(
        metadata={
            "minimum": 0,
            "description": "For `verification-failed`: further wrong numbers that VERIFY_LIMIT allows now.",
        },
    )


class HealthAnswer(Answer):
    """The process is alive."""

    status = fields.String(required=True, validate=OneOf(["ok"]))
    version = fields.String(required=True, metadata={"description": "Of this release."})


class ReadinessAnswer(Answer):
    """What this process needs, and how that is."""

    status = fields.String(required=True, validate=OneOf(["ready"]))
    redis = fields.String(required=True, validate=OneOf(["ok"]))
    smtp = fields.String(required=True, metadata={"description": "`ok`, or what is wrong."})


class ReadinessProblem(ProblemAnswer):
    """Redis does not answer or refuses writes, or a thread has died."""

    redis = fields.String(required=True, validate=OneOf(["ok", "unavailable"]))
    smtp = fields.String(required=True, metadata={"description": "`ok`, or what is wrong."})
    threads = fields.List(
        fields.String(), required=True, metadata={"description": "Threads that have died or hang, by name."}
    )
