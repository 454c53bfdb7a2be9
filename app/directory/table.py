"""One table of SERVICES_FILE: its keys, and what each may be."""

from collections.abc import Mapping
from typing import Any, Final

from marshmallow import RAISE, Schema, ValidationError, fields, validates_schema
from marshmallow.validate import Length, Range

from app import checks
from app.config import ApiKey
from app.domain.service import NO_LIMIT, Budget

EVENT_KEYS: Final = ("events_url", "events_secrets", "events_secrets_file", "events_private")

MAX_SECRETS: Final = 2
"""That sign events: more than one while they rotate."""

DIGEST: Final = "Must be the SHA-256 of a key in hexadecimal, or name:sha256-hex: see `flask keys new`."

BARE: Final = "0:"
"""What makes a bare digest an entry like those of API_KEYS."""

NO_TEXT: Final = "Must be a text between quotes."
MISSING: Final = "Must be set."
TEXT: Final[dict[str, Any]] = {"invalid": NO_TEXT, "required": MISSING}
LIST: Final[dict[str, Any]] = {"invalid": "Must be a list of texts.", "required": MISSING}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValidationError(NO_TEXT)
    return value


class Flag(fields.Boolean):
    """true or false, and nothing that could be taken for one of them."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("Must be true or false.")
        return value


class Limits(fields.Field[tuple[Budget, ...]]):
    """Limits that hold together; an empty text is no limit."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> tuple[Budget, ...]:
        return checks.limits(value) if _text(value) else ()


class Limit(fields.Field[Budget]):
    """One limit; an empty text is none."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Budget:
        return checks.one_limit(value) if _text(value) else NO_LIMIT


class Key(fields.Field[ApiKey]):
    """A key as in API_KEYS, or its bare digest; the name is then empty."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> ApiKey:
        found = checks.API_KEY.fullmatch(_text(value)) or checks.API_KEY.fullmatch(BARE + value)
        if not found:
            raise ValidationError(DIGEST)
        return ApiKey(found[1] if ":" in value else "", found[2].lower())


def _folder(value: str) -> None:
    parts = value.split("/")
    if not value.strip() or "" in parts or ".." in parts or "\0" in value:
        raise ValidationError(
            "Must be a folder beside SERVICES_FILE: neither an absolute path nor one that leads out of there."
        )


def _secrets_file(value: str) -> None:
    """Whether it can be read is seen later."""
    if not value.strip() or ".." in value.split("/") or "\0" in value:
        raise ValidationError("Must be a file beside SERVICES_FILE, or an absolute path; neither has `..`.")


class TableSchema(Schema):
    """What is missing falls back to the environment; `events_…` do not.

    What is loaded has the names of `Service`, but for `events_…`, of which one Endpoint is made.
    """

    class Meta:
        unknown = RAISE

    error_messages: dict[str, str] = {  # noqa: RUF012 - marshmallow declares it so
        "unknown": "There is no such key.",
        "type": "Must be a table: [name], and its keys below.",
    }

    keys = fields.List(
        Key(),
        required=True,
        validate=Length(min=1, error="Must not be empty: nobody could call."),
        error_messages=LIST,
    )
    name = fields.String(required=True, validate=checks.name, error_messages=TEXT)
    sender = fields.String(validate=checks.sender, error_messages=TEXT)
    support = fields.String(validate=checks.address, error_messages=TEXT)
    color = fields.String(validate=checks.color, error_messages=TEXT)
    logo = fields.String(validate=checks.logo, error_messages=TEXT)
    locale = fields.String(validate=checks.language, error_messages=TEXT)
    subject_number = Flag()
    templates = fields.String(validate=_folder, error_messages=TEXT)
    number_ttl = fields.Integer(
        attribute="ttl_s",
        strict=True,
        validate=Range(0, checks.TEN_YEARS_S),
        error_messages={"invalid": "Must be a whole number of seconds."},
    )
    address_limit = Limit()
    verify_limit = Limit()
    client_limit = Limits()
    test = Flag()
    events_url = fields.String(validate=checks.events_url, error_messages=TEXT)
    events_secrets = fields.List(
        fields.String(validate=checks.webhook_secret, error_messages=TEXT),
        validate=Length(1, MAX_SECRETS, error=f"Must be 1 to {MAX_SECRETS} secrets: all of them sign."),
        error_messages=LIST,
    )
    events_secrets_file = fields.String(validate=_secrets_file, error_messages=TEXT)
    events_private = Flag()

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def _events_are_whole(self, _: Any, written: Any, **__: Any) -> None:
        """Looks at what was written, so that one mistake in a value is not told as two."""
        given = [key for key in EVENT_KEYS if isinstance(written, Mapping) and key in written]
        secrets = [key for key in given if key.startswith("events_secrets")]
        if given and "events_url" not in given:
            raise ValidationError({key: ["Needs events_url beside it."] for key in given})
        if given and not secrets:
            raise ValidationError({"events_url": ["Needs events_secrets or events_secrets_file beside it."]})
        if len(secrets) > 1:
            raise ValidationError({secrets[1]: ["Must not stand beside events_secrets: one of the two."]})
