"""What a request and an answer may hold."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields
from marshmallow.validate import Length, OneOf

from app.config import LOCALES
from app.domain.address import MAX_LENGTH, Address
from app.domain.registration import Delivery
from app.errors import InvalidAddress

MAX_TOKEN_LENGTH = 4096
SURROGATE = re.compile("[\ud800-\udfff]")
IDEMPOTENCY_KEY_PATTERN = "^[!-~]([ -~]{0,253}[!-~])?$"
"""Visible ASCII, at most 255: a UUID, quoted or not, is what clients send."""

WITHOUT_NUL = r"^[^\u0000]*$"
EMAIL = {"maxLength": MAX_LENGTH, "format": "email", "examples": ["ada@example.com"]}
USER_ID = {"pattern": "^[a-z2-7]{26}$", "description": "Always the same for the same address."}
MOMENT = {"format": "date-time"}


class Text(fields.String):
    """A string that every store and every mail can carry: no NUL, no lone surrogate (RFC 8259 §8.2)."""

    default_error_messages = {  # noqa: RUF012 - as marshmallow declares it
        "unprintable": "Must not hold NUL or a lone surrogate."
    }

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if "\0" in text or (not text.isascii() and SURROGATE.search(text)):
            raise self.make_error("unprintable")
        return text


class EmailAddress(Text):
    """An e-mail address; becomes an `Address`."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Address:  # type: ignore[override]
        try:
            return Address.parse(super()._deserialize(value, attr, data, **kwargs))
        except InvalidAddress as error:
            raise ValidationError(str(error)) from error


class RegistrationRequest(Schema):
    """The address to confirm, and what to hand out for it."""

    class Meta:
        unknown = RAISE

    email = EmailAddress(required=True, metadata=EMAIL)
    token = Text(
        required=True,
        validate=Length(1, MAX_TOKEN_LENGTH),
        metadata={
            "description": "Whatever you want back when the number is handed in. No NUL, no lone surrogate.",
            "pattern": WITHOUT_NUL,
            "examples": ["order 4711, basket 3"],
        },
    )
    locale = Text(
        validate=OneOf(LOCALES),
        metadata={"description": "The language of the mail; DEFAULT_LOCALE where it is missing."},
    )


class RegistrationAnswer(Schema):
    """A registration that is stored. Neither the number nor the token is in it."""

    id = fields.String(required=True, metadata=USER_ID)
    email = fields.String(required=True)
    status = fields.Constant("registered", required=True, metadata={"type": "string", "enum": ["registered"]})
    delivery = fields.String(required=True, validate=OneOf([Delivery.SENT, Delivery.PENDING]))
    created_at = fields.String(required=True, metadata=MOMENT)


class VerificationRequest(Schema):
    """The address, and the number as the person typed it."""

    class Meta:
        unknown = RAISE

    email = EmailAddress(required=True, metadata=EMAIL)
    number = Text(
        required=True,
        metadata={
            "description": "As the person typed it; spaces and hyphens do not count. NUMBER_DIGITS digits, "
            "the last one a check digit: a typing error is `mistyped-number` and costs no try.",
            "examples": ["4821 0937 5523"],
        },
    )


class VerificationAnswer(Schema):
    """What was registered. The registration is consumed: this answer is given once."""

    id = fields.String(required=True, metadata=USER_ID)
    email = fields.String(required=True)
    token = fields.String(required=True)


class UserAnswer(RegistrationAnswer):
    """What is known of a registration."""

    delivery = fields.String(
        required=True, validate=OneOf([Delivery.SENT, Delivery.PENDING, Delivery.FAILED])
    )
    expires_at = fields.String(metadata={**MOMENT, "description": "Only where NUMBER_TTL is set."})
    mailed_at = fields.String(metadata={**MOMENT, "description": "When the mail server accepted the mail."})
    mail_attempts = fields.Integer(required=True, metadata={"minimum": 0})
    mail_error = fields.String(
        metadata={"description": "What became of the last attempt, as the mail server's code or in a word."}
    )


class ProblemAnswer(Schema):
    """An RFC 9457 problem."""

    type = fields.String(
        required=True,
        metadata={"format": "uri-reference", "pattern": "^/problems/[a-z-]+$", "description": "Its page."},
    )
    title = fields.String(required=True)
    status = fields.Integer(required=True, metadata={"minimum": 400, "maximum": 599})
    detail = fields.String(required=True)
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata={"description": "For `invalid-request`: what is wrong with which field."},
    )


class HealthAnswer(Schema):
    """The process is alive."""

    status = fields.String(required=True, validate=OneOf(["ok"]))


class ReadinessAnswer(Schema):
    """What this process needs, and how that is."""

    status = fields.String(required=True, validate=OneOf(["ready"]))
    redis = fields.String(required=True, validate=OneOf(["ok"]))
    smtp = fields.String(required=True, metadata={"description": "`ok`, or what is wrong."})


class ReadinessProblem(ProblemAnswer):
    """Redis does not answer or refuses writes, or a thread has died."""

    redis = fields.String(required=True, validate=OneOf(["ok", "unavailable"]))
    smtp = fields.String(required=True, metadata={"description": "`ok`, or what is wrong."})
    threads = fields.List(
        fields.String(), metadata={"description": "For `not-ready`: threads that have died or hang."}
    )


def rfc3339(unix_ms: int) -> str:
    """`2026-11-22T16:53:29.123Z` (RFC 3339)."""
    return f"{_second(unix_ms // 1000)}.{unix_ms % 1000:03}Z"


@lru_cache(maxsize=8)
def _second(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%S}"
