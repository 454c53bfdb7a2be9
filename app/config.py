"""Settings: read once from the environment, checked together, frozen.

Every setting can be given as `NAME` or, for container secrets, as the path of a file in `NAME_FILE`.
`docs/settings.md` is the table for operators.
"""

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import getaddresses
from pathlib import Path
from typing import Any, Final

import limits
from environs import EnvValidationError, FileAwareEnv
from marshmallow import ValidationError
from marshmallow.validate import OneOf, Range

from app.domain.registration import Budget
from app.errors import SettingsError
from app.storage.url import RedisUrl

MIN_SECRET_LENGTH: Final = 32
"""Characters; a shorter secret can be searched."""

LOCALES: Final = ("en", "es")

TEN_AN_HOUR: Final = Budget(10, 3600)
"""A person registers again a few times; more mails an hour are a nuisance to whoever owns the mailbox."""

FIVE_IN_15_MINUTES: Final = Budget(5, 900)
"""480 guesses a day at most, and 100 end the registration anyway."""

SENDER: Final = re.compile(r"[!-~]+@[!-~]+")

API_KEY: Final = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9A-Fa-f]{64})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that opens the API: who has it, and the SHA-256 of it in hexadecimal."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Settings:
    """What the operator decided. Secrets do not show in `repr`."""

    redis_url: str = field(default="redis://localhost:6379/0", repr=False)
    redis_timeout_s: float = 2.0
    redis_wait_replicas: int = 0
    secret_key: str = field(default="", repr=False)
    secret_key_fallbacks: tuple[str, ...] = field(default=(), repr=False)
    index_key: str = field(default="", repr=False)

    mail_server: str = "127.0.0.1"
    mail_port: int = 25
    mail_use_tls: bool = False
    mail_use_ssl: bool = False
    mail_username: str = field(default="", repr=False)
    mail_password: str = field(default="", repr=False)
    mail_default_sender: str = ""
    mail_ca_file: str = ""
    mail_timeout_s: float = 10.0
    mail_connections: int = 32
    mail_templates: str = ""
    default_locale: str = "en"

    number_digits: int = 12
    number_ttl_s: int = 0
    address_limit: Budget = TEN_AN_HOUR
    verify_limit: Budget = FIVE_IN_15_MINUTES
    client_limit: str = ""
    api_keys: tuple[ApiKey, ...] = field(default=(), repr=False)
    trusted_proxies: int = 0
    client_connections: int = 0
    idempotency_ttl_s: int = 86_400

    @property
    def lease_ms(self) -> int:
        """How long a sender may be silent before another takes its place: two waits and a margin."""
        return int((2 * self.mail_timeout_s + 5) * 1000)

    @classmethod
    def from_environment(cls) -> "Settings":
        """Reads the environment. Raises SettingsError, which lists everything that is wrong."""
        return _Reader().settings()


class _Reader:
    """Reads one setting after another and collects what is wrong with them."""

    def __init__(self) -> None:
        self._env = FileAwareEnv(eager=False, strip_whitespace=True)
        self._errors: dict[str, list[str]] = {}

    def settings(self) -> Settings:
        secret_key = self._text("SECRET_KEY", validate=_secret)
        fallbacks = tuple(
            part.strip() for part in self._text("SECRET_KEY_FALLBACKS").split(",") if part.strip()
        )
        index_key = self._text("INDEX_KEY", validate=_secret)
        for fallback in fallbacks:
            self._check("SECRET_KEY_FALLBACKS", _secret, fallback)
        if fallbacks and not secret_key:
            self._wrong("SECRET_KEY_FALLBACKS", "Needs SECRET_KEY: a fallback only opens.")
        if fallbacks and not index_key:
            self._wrong("INDEX_KEY", "Must be set where SECRET_KEY_FALLBACKS is, to the key of the data.")
        use_tls, use_ssl = self._flag("MAIL_USE_TLS"), self._flag("MAIL_USE_SSL")
        if use_tls and use_ssl:
            self._wrong("MAIL_USE_TLS", "STARTTLS and implicit TLS (MAIL_USE_SSL) exclude each other.")
        username, password = self._text("MAIL_USERNAME"), self._text("MAIL_PASSWORD")
        if bool(username) != bool(password):
            self._wrong("MAIL_PASSWORD", "MAIL_USERNAME and MAIL_PASSWORD belong together.")
        settings = Settings(
            redis_url=self._text("REDIS_URL", Settings.redis_url, _redis_url),
            redis_timeout_s=self._number("REDIS_TIMEOUT", 2.0, 0.05, 60),
            redis_wait_replicas=self._whole("REDIS_WAIT_REPLICAS", Settings.redis_wait_replicas, 0, 100),
            secret_key=secret_key,
            secret_key_fallbacks=fallbacks,
            index_key=index_key or secret_key,
            mail_server=self._text("MAIL_SERVER", Settings.mail_server, _not_empty),
            mail_port=self._whole("MAIL_PORT", Settings.mail_port, 1, 65_535),
            mail_use_tls=use_tls,
            mail_use_ssl=use_ssl,
            mail_username=username,
            mail_password=password,
            mail_default_sender=self._text(
                "MAIL_DEFAULT_SENDER", f"no-reply@{socket.gethostname()}", _sender
            ),
            mail_ca_file=self._text("MAIL_CA_FILE", "", _file),
            mail_timeout_s=self._number("MAIL_TIMEOUT", 10.0, 0.1, 50),
            mail_connections=self._whole("MAIL_CONNECTIONS", Settings.mail_connections, 1, 1000),
            mail_templates=self._text("MAIL_TEMPLATES", "", _folder),
            default_locale=self._text("DEFAULT_LOCALE", Settings.default_locale, OneOf(LOCALES)),
            number_digits=self._whole("NUMBER_DIGITS", Settings.number_digits, 11, 18),
            number_ttl_s=self._whole("NUMBER_TTL", Settings.number_ttl_s, 0, 10 * 366 * 86_400),
            address_limit=_budget(self._limit("ADDRESS_LIMIT", "10/hour", _one_limit)),
            verify_limit=_budget(self._limit("VERIFY_LIMIT", "5/15 minutes", _one_limit)),
            client_limit=self._limit("CLIENT_LIMIT", "", _limits),
            api_keys=self._api_keys(),
            trusted_proxies=self._whole("TRUSTED_PROXIES", Settings.trusted_proxies, 0, 100),
            client_connections=self._whole("CLIENT_CONNECTIONS", Settings.client_connections, 0, 100_000),
            idempotency_ttl_s=self._whole("IDEMPOTENCY_TTL", Settings.idempotency_ttl_s, 1, 366 * 86_400),
        )
        self._raise_if_wrong()
        return settings

    def _text(self, name: str, default: str = "", validate: Callable[[str], Any] | None = None) -> str:
        return str(self._read(self._env.str, name, default, validate=validate) or "")

    def _flag(self, name: str) -> bool:
        return bool(self._read(self._env.bool, name, False))

    def _whole(self, name: str, default: int, lowest: int, highest: int) -> int:
        return int(self._read(self._env.int, name, default, validate=Range(lowest, highest)) or 0)

    def _number(self, name: str, default: float, lowest: float, highest: float) -> float:
        return float(self._read(self._env.float, name, default, validate=Range(lowest, highest)) or 0)

    def _limit(self, name: str, default: str, validate: Callable[[str], None]) -> str:
        """A limit such as `5/15 minutes`. Here an empty variable means: no limit."""
        if os.environ.get(name) == "" and not os.environ.get(f"{name}_FILE"):
            return ""
        return self._text(name, default, validate)

    def _api_keys(self) -> tuple[ApiKey, ...]:
        entries = [entry.strip() for entry in self._text("API_KEYS").split(",") if entry.strip()]
        found = [API_KEY.fullmatch(entry) for entry in entries]
        given = os.environ.get("API_KEYS") or os.environ.get("API_KEYS_FILE")
        if None in found or (given and not entries):  # an empty file must not open the API
            self._wrong("API_KEYS", "Must be name:sha256-hex, with commas between: see `flask keys new`.")
        return tuple(ApiKey(match[1], match[2].lower()) for match in found if match)

    def _read(self, parser: Any, name: str, default: Any, **options: Any) -> Any:
        """The value, or the default where it is unset or empty: an empty variable is how compose files,
        manifests and shells say "not set"."""
        if os.environ.get(name) and os.environ.get(f"{name}_FILE"):
            self._wrong(name, f"Set either {name} or {name}_FILE, not both.")
        if not os.environ.get(name) and not os.environ.get(f"{name}_FILE"):
            return default
        try:
            return parser(name, default, **options)
        except (OSError, ValueError):
            self._wrong(f"{name}_FILE", "Must be the path of a readable text file.")
            return default

    def _check(self, name: str, validate: Callable[[str], None], value: str) -> None:
        try:
            validate(value)
        except ValidationError as error:
            self._wrong(name, str(error.messages[0]))

    def _wrong(self, name: str, message: str) -> None:
        self._errors.setdefault(name, []).append(message)

    def _raise_if_wrong(self) -> None:
        try:
            self._env.seal()
        except EnvValidationError as error:
            for name, messages in dict(error.error_messages).items():  # type: ignore[arg-type]
                for message in messages:
                    self._wrong(name, str(message))
        if self._errors:
            lines = [f"  {name}: {' '.join(messages)}" for name, messages in sorted(self._errors.items())]
            raise SettingsError("\n".join(["These settings are wrong:", *lines]))


def _secret(value: str) -> None:
    if len(value) < MIN_SECRET_LENGTH:
        raise ValidationError(f"Must be at least {MIN_SECRET_LENGTH} characters long.")
    if "," in value:
        raise ValidationError("Must not hold a comma: it could not stand among the fallbacks later.")


def _limits(value: str) -> None:
    """One limit, or several that hold together."""
    try:
        amounts = [item.amount for item in limits.parse_many(value)]
    except ValueError:
        amounts = []
    if not all(amounts) or not amounts:
        raise ValidationError('Must be a limit such as "10/hour" or "5/15 minutes", or empty for none.')


def _one_limit(value: str) -> None:
    _limits(value)
    if len(limits.parse_many(value)) > 1:
        raise ValidationError("Must be one limit, not several.")


def _budget(text: str) -> Budget:
    try:
        item = limits.parse(text)
    except ValueError:  # none, or wrong and reported already
        return Budget()
    return Budget(item.amount, item.get_expiry())


def _not_empty(value: str) -> None:
    if not value.strip():
        raise ValidationError("Must not be empty.")


def _redis_url(value: str) -> None:
    try:
        RedisUrl.read(value)
    except ValueError as error:  # its text shows nothing of the value
        raise ValidationError(f"Cannot be read: {error}.") from error


def _sender(value: str) -> None:
    found = getaddresses([value])
    address = found[0][1] if len(found) == 1 else ""
    if not SENDER.fullmatch(address) or address not in value or any(c in value for c in "\r\n\0"):
        raise ValidationError('Must be an address, or a name and an address: "Name <address>".')


def _file(value: str) -> None:
    if not Path(value).is_file():
        raise ValidationError("Must be the path of a readable file.")


def _folder(value: str) -> None:
    if not Path(value).is_dir():
        raise ValidationError("Must be the path of a folder.")
