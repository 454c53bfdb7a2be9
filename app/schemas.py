"""What a request and an answer may hold."""

from datetime import UTC, datetime
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields
from marshmallow.validate import Length, OneOf

from app.addresses import MAX_LENGTH, Address
from app.config import LOCALES
from app.errors import InvalidAddress
from app.registrations import Delivery

MAX_TOKEN_LENGTH = 4096
MAX_TYPED_LENGTH = 64
"""Of a number with all the spaces and hyphens that a person may put into it."""

EMAIL = {"maxLength": MAX_LENGTH, "format": "email", "example": "ada@example.com"}


class Text(fields.String):
    """A string that every store and every mail can carry: no NUL, no lone surrogate (RFC 8259 §8.2)."""

    default_error_messages = {  # noqa: RUF012 - as marshmallow declares it
        "unprintable": "Must not hold NUL or a lone surrogate."
    }

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in _not_latin(text)):
            raise self.make_error("unprintable")
        return text


def _not_latin(text: str) -> str:
    """Only a text outside ASCII can hold a surrogate; nearly all are inside."""
    return "" if text.isascii() else text


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
    token = Text(required=True, validate=Length(1, MAX_TOKEN_LENGTH))
    locale = Text(validate=OneOf(LOCALES))


class RegistrationAnswer(Schema):
    """A registration that is stored. Neither the number nor the token is in it."""

    id = fields.String(required=True)
    email = fields.String(required=True)
    status = fields.Constant("registered")
    delivery = fields.Enum(Delivery, by_value=True, required=True)
    created_at = fields.String(required=True, metadata={"format": "date-time"})


class VerificationRequest(Schema):
    """The address, and the number as the person typed it."""

    class Meta:
        unknown = RAISE

    email = EmailAddress(required=True, metadata=EMAIL)
    number = Text(
        required=True,
        validate=Length(1, MAX_TYPED_LENGTH),
        metadata={
            "description": "Spaces and hyphens do not count.",
            "example": "4821 0937 5526",
        },
    )


class VerificationAnswer(Schema):
    """What was registered. The registration is consumed: this answer is given once."""

    id = fields.String(required=True)
    email = fields.String(required=True)
    token = fields.String(required=True)


class UserAnswer(RegistrationAnswer):
    """What is known of a registration."""

    expires_at = fields.String(metadata={"format": "date-time"})
    mailed_at = fields.String(metadata={"format": "date-time"})
    mail_attempts = fields.Integer(required=True)
    mail_error = fields.String()


class ProblemAnswer(Schema):
    """An RFC 9457 problem."""

    type = fields.String(required=True, metadata={"format": "uri-reference"})
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    errors = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))


def rfc3339(unix_ms: int) -> str:
    """`2026-11-22T16:53:29.123Z` (RFC 3339)."""
    moment = datetime.fromtimestamp(unix_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{unix_ms % 1000:03}Z"
