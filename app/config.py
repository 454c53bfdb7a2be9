"""Settings: read once from the environment, checked together, frozen.

Every setting can be given as `NAME` or, for container secrets, as the path of a file in `NAME_FILE`.
`docs/settings.md` is the table for operators.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from environs import EnvValidationError, FileAwareEnv
from marshmallow import ValidationError
from marshmallow.validate import Range

from app import checks
from app.domain.service import NO_LIMIT, Budget
from app.errors import SettingsError

LANGUAGES: Final = ("en", "es", "pt", "fr", "de", "it", "ar")
"""Those of the built-in mails."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that opens the API: who has it, and the SHA-256 of it in hexadecimal."""

    name: str
    sha256: str


def _text(default: str = "", validate: Callable[[str], Any] | None = None, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parser": "str", "validate": validate})


def _flag(default: bool = False) -> Any:
    return field(default=default, metadata={"parser": "bool"})


def _whole(default: int, lowest: int, highest: int) -> Any:
    return field(default=default, metadata={"parser": "int", "validate": Range(lowest, highest)})


def _number(default: float, lowest: float, highest: float) -> Any:
    return field(default=default, metadata={"parser": "float", "validate": Range(lowest, highest)})


LIMIT: Final = {"parser": "limit", "empty": NO_LIMIT}
"""How a limit is read, as `_read` takes it: empty means that there is none."""


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
    address_limit: Budget = field(default=Budget(10, 3600), metadata=LIMIT)
    """A person registers again a few times; more mails an hour are a nuisance to the owner of the mailbox."""
    mailbox_limit: Budget = field(default=Budget(20, 3600), metadata=LIMIT)
    """Two services may each use up their own limit; beyond that the person must be protected."""
    verify_limit: Budget = field(default=Budget(5, 900), metadata=LIMIT)
    """480 guesses a day at most, and 100 end the registration anyway."""
    client_limit: tuple[Budget, ...] = field(default=(), metadata={"parser": "limits"})
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


def _is_set(name: str) -> bool:
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))


class _Reader:
    """Reads one setting after another and collects what is wrong with them."""

    def __init__(self) -> None:
        self._env = FileAwareEnv(eager=False, strip_whitespace=True)
        self._env.add_parser("limit", checks.one_limit)
        self._env.add_parser("limits", checks.limits)
        self._errors: dict[str, list[str]] = {}

    def settings(self) -> Settings:
        found: dict[str, Any] = {
            each.name: self._read(variable_of(each.name), each.default, **each.metadata)
            for each in fields(Settings)
            if each.metadata
        }
        fallbacks = tuple(self._entries("SECRET_KEY_FALLBACKS"))
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
            "api_keys": self._api_keys(),
        }
        self._raise_if_wrong()
        return Settings(**found)

    def _api_keys(self) -> tuple[ApiKey, ...]:
        entries = self._entries("API_KEYS")
        found = [checks.API_KEY.fullmatch(entry) for entry in entries]
        if None in found or (_is_set("API_KEYS") and not entries):  # an empty file must not open the API
            self._wrong("API_KEYS", "Must be name:sha256-hex, with commas between: see `flask keys new`.")
        return tuple(ApiKey(match[1], match[2].lower()) for match in found if match)

    def _entries(self, name: str) -> list[str]:
        """What stands between commas."""
        text = self._read(name, "") or ""
        return [entry for part in text.split(",") if (entry := part.strip())]

    def _read(self, name: str, default: Any, parser: str = "str", empty: Any = None, **more: Any) -> Any:
        """The value; the default where it is unset, or empty: so compose files, manifests and shells say "not
        set". `empty`: what an empty variable means instead."""
        if os.environ.get(name) and os.environ.get(f"{name}_FILE"):
            self._wrong(name, f"Set either {name} or {name}_FILE, not both.")
        if not _is_set(name):
            return default if empty is None or name not in os.environ else empty
        path = os.environ.get(f"{name}_FILE")
        try:
            if path and not Path(path).is_file():  # to open a FIFO would wait for whoever writes into it
                raise FileNotFoundError(path)
            return getattr(self._env, parser)(name, default, **more)
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
                self._errors.setdefault(name, []).extend(map(str, messages))
        if self._errors:
            raise SettingsError.listing(
                f"{name}: {' '.join(each)}" for name, each in sorted(self._errors.items())
            )
