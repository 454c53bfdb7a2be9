"""The services that settings and SERVICES_FILE describe, with everything that is wrong in them.

Each key of a table that is missing falls back to the setting of the environment. Raises nothing: what is
wrong is collected, so that it can be told at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from email.utils import formataddr, parseaddr, quote
from pathlib import Path
from typing import Any, Final

from marshmallow import ValidationError

from app import checks
from app.config import LANGUAGES, ApiKey, Settings
from app.directory.file import FILE, Lines, Wrong, at, parse, shown
from app.directory.source import MAIL_TEMPLATES, Source, Unreadable
from app.directory.table import MAX_SECRETS
from app.domain.service import DEFAULT, Caller, Endpoint, Service
from app.errors import SettingsError

Check = Callable[[Service, Sequence[str] | None], Iterable[str]]
"""What else is wrong with a service in its mails of these languages, None = of all: a sentence for each,
without a secret."""

OF_SERVICE: Final = {each.name for each in fields(Service)}


def nothing_else(_: Service, __: Sequence[str] | None) -> Iterable[str]:
    """A check that finds nothing."""
    return ()


@dataclass
class Reading:
    """What was read. It can be put in force where nothing is `wrong`."""

    source: Source
    closed: bool
    """A caller without a key is refused, also where there are no keys at all."""
    services: list[Service] = field(default_factory=list)
    keys: dict[str, Caller] = field(default_factory=dict)
    """By the SHA-256 in hexadecimal."""
    wrong: list[Wrong] = field(default_factory=list)

    @property
    def error(self) -> SettingsError:
        """Everything that is wrong."""
        return SettingsError.listing(self.wrong)


def read_disk(settings: Settings, check: Check = nothing_else) -> Reading:
    """Reads the files as they are now."""
    try:
        source = Source.on_disk(settings)
    except Unreadable as error:
        reading = read(settings, Source(None, {}, Path(settings.services_file).parent), check)
        reading.wrong.append(Wrong(FILE, 0, str(error)))
        return reading
    return read(settings, source, check)


def read(settings: Settings, source: Source, check: Check = nothing_else) -> Reading:
    """Reads what a source holds."""
    reading = Reading(source, closed=bool(settings.services_file))
    default = default_service(settings, _default_templates(settings, reading))
    reading.wrong.extend(Wrong("DEFAULT_LOCALE", 0, each) for each in _language_missing(default))
    if default.templates and not reading.wrong:
        reading.wrong.extend(Wrong("MAIL_TEMPLATES", 0, each) for each in check(default, None))
    reading.services.append(default)
    reading.keys.update({key.sha256: Caller(default, key.name) for key in settings.api_keys})
    if source.text is not None:
        _Tables(source.text, default, reading, check).read()
        reading.wrong.sort(key=lambda each: each.line)
    return reading


def _default_templates(settings: Settings, reading: Reading) -> Mapping[str, str]:
    if not settings.mail_templates:
        return {}
    try:
        return reading.source.templates(MAIL_TEMPLATES, Path(settings.mail_templates))
    except Unreadable as error:
        reading.wrong.append(Wrong("MAIL_TEMPLATES", 0, str(error)))
        return {}


class _Tables:
    """Makes services of the tables of a file."""

    def __init__(self, text: str, default: Service, reading: Reading, check: Check) -> None:
        self._text, self._lines = text, Lines(text)
        self._default, self._reading, self._check = default, reading, check
        self._shares_good_templates = bool(default.templates) and not reading.wrong

    def read(self) -> None:
        tables, wrong = parse(self._text)
        self._reading.wrong.extend(wrong)
        in_trouble = {each.table for each in wrong}
        for name, table in tables.items():
            self._add(name, table, name not in in_trouble)

    def _add(self, name: str, table: dict[str, Any], is_well: bool) -> None:
        """Adds the service of one table; where something is wrong in the table, only looks for more."""
        before = len(self._reading.wrong)
        service = self._service(name, table)
        if "locale" in table:
            self._wrong(name, "locale", _language_missing(service))
        self._add_keys(service, table.get("keys", ()))
        if is_well:
            self._check_mails(service)
        if is_well and len(self._reading.wrong) == before:
            self._reading.services.append(service)

    def _check_mails(self, service: Service) -> None:
        """Templates that are good for `default` may fail at what only another service has. So shared ones are
        checked for each, but in one language: in every one, a thousand services would take 14 s."""
        if service.templates is not self._default.templates:
            self._wrong(service.id, "templates", self._check(service, None))
        elif self._shares_good_templates:
            self._wrong(service.id, "", self._check(service, [service.locale]))

    def _service(self, name: str, table: dict[str, Any]) -> Service:
        display = table.get("name", name)
        sender = table.get("sender") or parseaddr(self._default.sender)[1]
        own = {key: value for key, value in table.items() if key in OF_SERVICE} | {
            "id": name,
            "name": display,
            "sender": with_name(sender, display),
            "templates": self._templates(name, table.get("templates", "")),
            "events": self._events(name, table),
        }
        return replace(self._default, **own)

    def _templates(self, name: str, folder: str) -> Mapping[str, str]:
        """By file: the service's own, else that of MAIL_TEMPLATES."""
        if not folder:
            return self._default.templates
        try:
            return {**self._default.templates, **self._reading.source.templates(folder)}
        except Unreadable as error:
            self._wrong(name, "templates", [str(error)])
            return self._default.templates

    def _events(self, name: str, table: dict[str, Any]) -> Endpoint | None:
        """Reads the file with secrets even where there is no good URL, so that all that is wrong is told at
        once."""
        file = table.get("events_secrets_file")
        secrets = self._secrets(name, file) if file else table.get("events_secrets", ())
        if "events_url" not in table or not secrets:
            return None
        return Endpoint(table["events_url"], tuple(secrets), table.get("events_private", False))

    def _secrets(self, name: str, file: str) -> list[str]:
        """Those in a file, one a line."""
        try:
            secrets = self._reading.source.secrets(file).split()
            wrong = list(_secret_problems(secrets))
        except Unreadable as error:
            secrets, wrong = [], [str(error)]
        self._wrong(name, "events_secrets_file", wrong)
        return [] if wrong else secrets

    def _add_keys(self, service: Service, keys: Iterable[ApiKey]) -> None:
        for place, key in enumerate(keys, 1):
            taken = self._reading.keys.get(key.sha256)
            if taken:
                message = f"Number {place} is a key of {_whose(taken)}; a key belongs to one service, once."
                self._wrong(service.id, "keys", [message])
            else:
                self._reading.keys[key.sha256] = Caller(service, f"{service.id}/{key.name or place}")

    def _wrong(self, name: str, key: str, messages: Iterable[str]) -> None:
        self._reading.wrong.extend(at(self._lines, name, key, each) for each in messages)


def _secret_problems(secrets: list[str]) -> Iterator[str]:
    if not 1 <= len(secrets) <= MAX_SECRETS:
        yield f"Must hold 1 to {MAX_SECRETS} secrets, one a line."
    for place, each in enumerate(secrets[:MAX_SECRETS], 1):
        try:
            checks.webhook_secret(each)
        except ValidationError as error:
            yield f"In it, number {place}: {' '.join(error.messages)}"


def _whose(caller: Caller) -> str:
    return "API_KEYS" if caller.service.id == DEFAULT else f"[{shown(caller.service.id)}]"


def _language_missing(service: Service) -> Iterator[str]:
    brought = {name.removesuffix(".toml") for name in service.templates if name.endswith(".toml")}
    languages = [*LANGUAGES, *sorted(brought - set(LANGUAGES))]
    if service.locale not in languages:
        yield f"There are no mails in this language, only: {', '.join(languages)}."


def default_service(settings: Settings, templates: Mapping[str, str]) -> Service:
    """The service that the environment describes."""
    display, address = parseaddr(settings.mail_default_sender)
    sender = settings.mail_default_sender
    return Service(
        name=settings.service_name or display or address.rpartition("@")[2],
        sender=with_name(sender, settings.service_name) if settings.service_name else sender,
        support=settings.service_support,
        color=settings.service_color,
        logo=settings.service_logo,
        locale=settings.default_locale,
        subject_number=settings.subject_number,
        templates=templates,
        ttl_s=settings.number_ttl_s,
        address_limit=settings.address_limit,
        mailbox_limit=settings.mailbox_limit,
        verify_limit=settings.verify_limit,
        client_limit=settings.client_limit,
    )


def with_name(sender: str, name: str) -> str:
    """`Name <address>`; a sender that has a name keeps it.

    A name outside ASCII is quoted and not encoded: `formataddr` would make one encoded word of it, of more
    than the 75 characters that RFC 2047 allows. What writes the header encodes it in several.
    """
    display, address = parseaddr(sender)
    if display:
        return sender
    return formataddr((name, address)) if name.isascii() else f'"{quote(name)}" <{address}>'
