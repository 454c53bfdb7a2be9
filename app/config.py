"""Settings: read once from the environment, checked together, frozen.

Every setting can be given as `NAME` or, for container secrets, as the path of a file in `NAME_FILE`.
`docs/settings.md` is the table for operators.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

from environs import EnvValidationError, FileAwareEnv
from marshmallow import ValidationError
from marshmallow.validate import Range

from app import checks
from app.domain.service import NO_LIMIT, Budget
from app.errors import SettingsError

L = TypeVar("L", Budget, tuple[Budget, ...])

LANGUAGES: Final = ("en", "es", "pt", "fr", "de", "it", "ar")
"""Those of the built-in mails."""

TEN_AN_HOUR: Final = Budget(10, 3600)
"""A person registers again a few times; more mails an hour are a nuisance to whoever owns the mailbox."""

FIVE_IN_15_MINUTES: Final = Budget(5, 900)
"""480 guesses a day at most, and 100 end the registration anyway."""

TWENTY_AN_HOUR: Final = Budget(20, 3600)
"""Two services may each use up their own limit; beyond that it is the person who must be protected."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that opens the API: who has it, and the SHA-256 of it in hexadecimal."""

    name: str
    sha256: str


def _text(default: str = "", check: Callable[[str], Any] | None = None, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parser": "str", "check": check})


def _flag(default: bool = False) -> Any:
    return field(default=default, metadata={"parser": "bool", "check": None})


def _whole(default: int, lowest: int, highest: int) -> Any:
    return field(default=default, metadata={"parser": "int", "check": Range(lowest, highest)})


def _number(default: float, lowest: float, highest: float) -> Any:
    return field(default=default, metadata={"parser": "float", "check": Range(lowest, highest)})


@dataclass(frozen=True)
class Settings:
    """What the operator decided. Secrets do not show in `repr`.

    Where nothing else is said, the name in the environment is the field's, in capitals and without its unit.
    """

    redis_url: str = _text("redis://localhost:6379/0", checks.redis_url, secret=True)
    redis_timeout_s: float = _number(2.0, 0.05, 60)
    redis_wait_replicas: int = _whole(0, 0, 100)
    secret_key: str = _text("", checks.secret, secret=True)
    secret_key_fallbacks: tuple[str, ...] = field(default=(), repr=False)
    index_key: str = _text("", checks.secret, secret=True)
    """SECRET_KEY where it is not set."""

    mail_server: str = _text("127.0.0.1", checks.not_empty)
    mail_port: int = _whole(25, 1, 65_535)
    mail_use_tls: bool = _flag()
    mail_use_ssl: bool = _flag()
    mail_username: str = _text(secret=True)
    mail_password: str = _text(secret=True)
    mail_default_sender: str = _text("", checks.sender)
    """`no-reply@` this host where it is not set."""
    mail_ca_file: str = _text("", checks.file)
    mail_timeout_s: float = _number(10.0, 0.1, 50)
    mail_connections: int = _whole(32, 1, 1000)
    bounce_address: str = _text("", checks.bounce_address)
    """Empty: mails have the sender of their service, and reports of them are not known by a tag."""
    suppress_ttl_s: int = _whole(604_800, 1, 366 * 86_400)
    mail_templates: str = _text()
    """Read, and checked, where the services are."""
    default_locale: str = _text("en", checks.language)

    services_file: str = _text()
    """Read, and checked, where the services are."""
    service_name: str = _text("", checks.name)
    service_support: str = _text("", checks.address)
    service_color: str = _text("", checks.color)
    service_logo: str = _text("", checks.logo)
    subject_number: bool = _flag()

    number_digits: int = _whole(10, 10, 18)
    number_ttl_s: int = _whole(86_400, 0, checks.TEN_YEARS_S)
    address_limit: Budget = TEN_AN_HOUR
    mailbox_limit: Budget = TWENTY_AN_HOUR
    verify_limit: Budget = FIVE_IN_15_MINUTES
    client_limit: tuple[Budget, ...] = ()
    api_keys: tuple[ApiKey, ...] = field(default=(), repr=False)
    docs: bool = _flag(default=True)
    trusted_proxies: int = _whole(0, 0, 100)
    client_connections: int = _whole(0, 0, 100_000)
    idempotency_ttl_s: int = _whole(86_400, 1, 366 * 86_400)

    @property
    def lease_ms(self) -> int:
        """How long a sender may be silent before another takes its place: two waits and a margin."""
        return int((2 * self.mail_timeout_s + 5) * 1000)

    @classmethod
    def from_environment(cls) -> "Settings":
        """Reads the environment. Raises SettingsError, which lists everything that is wrong."""
        return _Reader().settings()


def variable_of(name: str) -> str:
    """The environment variable of a field of Settings; `_FILE` after it names a file that holds the value."""
    return name.upper().removesuffix("_S")


class _Reader:
    """Reads one setting after another and collects what is wrong with them."""

    def __init__(self) -> None:
        self._env = FileAwareEnv(eager=False, strip_whitespace=True)
        self._errors: dict[str, list[str]] = {}

    def settings(self) -> Settings:
        found: dict[str, Any] = {
            each.name: self._read(
                variable_of(each.name),
                each.default,
                parser=each.metadata["parser"],
                validate=each.metadata["check"],
            )
            for each in fields(Settings)
            if each.metadata
        }
        fallbacks = tuple(
            part.strip() for part in self._string("SECRET_KEY_FALLBACKS").split(",") if part.strip()
        )
        for fallback in fallbacks:
            self._check("SECRET_KEY_FALLBACKS", checks.secret, fallback)
        if fallbacks and not found["secret_key"]:
            self._wrong("SECRET_KEY_FALLBACKS", "Needs SECRET_KEY: a fallback only opens.")
        if fallbacks and not found["index_key"]:
            self._wrong("INDEX_KEY", "Must be set where SECRET_KEY_FALLBACKS is, to the key of the data.")
        if found["bounce_address"] and not (found["index_key"] or found["secret_key"]):
            self._wrong(
                "BOUNCE_ADDRESS", "Needs INDEX_KEY or SECRET_KEY: tags that anybody can make prove nothing."
            )
        if found["mail_use_tls"] and found["mail_use_ssl"]:
            self._wrong("MAIL_USE_TLS", "STARTTLS and implicit TLS (MAIL_USE_SSL) exclude each other.")
        if bool(found["mail_username"]) != bool(found["mail_password"]):
            self._wrong("MAIL_PASSWORD", "MAIL_USERNAME and MAIL_PASSWORD belong together.")
        found |= {
            "secret_key_fallbacks": fallbacks,
            "index_key": found["index_key"] or found["secret_key"],
            "mail_default_sender": found["mail_default_sender"] or f"no-reply@{socket.gethostname()}",
            "address_limit": self._limit("ADDRESS_LIMIT", TEN_AN_HOUR),
            "mailbox_limit": self._limit("MAILBOX_LIMIT", TWENTY_AN_HOUR),
            "verify_limit": self._limit("VERIFY_LIMIT", FIVE_IN_15_MINUTES),
            "client_limit": self._read_limit("CLIENT_LIMIT", checks.limits, default=(), empty=()),
            "api_keys": self._api_keys(),
        }
        self._raise_if_wrong()
        return Settings(**found)

    def _string(self, name: str) -> str:
        return str(self._read(name, "", parser="str", validate=None) or "")

    def _limit(self, name: str, default: Budget) -> Budget:
        return self._read_limit(name, checks.one_limit, default=default, empty=NO_LIMIT)

    def _read_limit(self, name: str, read: Callable[[str], L], *, default: L, empty: L) -> L:
        """`5/15 minutes`, say. Here an empty variable means: no limit."""
        if not os.environ.get(name) and not os.environ.get(f"{name}_FILE"):
            return empty if name in os.environ else default
        try:
            return read(self._string(name))
        except ValidationError as error:
            self._wrong(name, str(error.messages[0]))
            return default

    def _api_keys(self) -> tuple[ApiKey, ...]:
        entries = [entry.strip() for entry in self._string("API_KEYS").split(",") if entry.strip()]
        found = [checks.API_KEY.fullmatch(entry) for entry in entries]
        given = os.environ.get("API_KEYS") or os.environ.get("API_KEYS_FILE")
        if None in found or (given and not entries):  # an empty file must not open the API
            self._wrong("API_KEYS", "Must be name:sha256-hex, with commas between: see `flask keys new`.")
        return tuple(ApiKey(match[1], match[2].lower()) for match in found if match)

    def _read(self, name: str, default: Any, *, parser: str, validate: Any) -> Any:
        """The value, or the default where it is unset or empty: an empty variable is how compose files,
        manifests and shells say "not set"."""
        if os.environ.get(name) and os.environ.get(f"{name}_FILE"):
            self._wrong(name, f"Set either {name} or {name}_FILE, not both.")
        if not os.environ.get(name) and not os.environ.get(f"{name}_FILE"):
            return default
        try:
            return getattr(self._env, parser)(name, default, validate=validate)
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
            by_name: Any = error.error_messages
            for name, messages in by_name.items():
                for message in messages:
                    self._wrong(name, str(message))
        if self._errors:
            lines = [f"  {name}: {' '.join(messages)}" for name, messages in sorted(self._errors.items())]
            raise SettingsError("\n".join(["These settings are wrong:", *lines]))
