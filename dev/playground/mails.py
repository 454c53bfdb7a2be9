"""The mails of every service as their files are at this moment.

A service reads its templates when it starts, and composes a mail once. Here everything is read anew at each
look and nothing is kept, so that somebody who edits a file sees the result.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from email.utils import parseaddr
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from app.config import Settings
from app.directory.file import parse
from app.directory.reading import Reading, read_disk
from app.directory.source import Source, Unreadable
from app.domain.service import Service
from app.errors import SettingsError
from app.mail.languages import available, built_in
from app.mail.messages import Messages, ShownMail, sample
from app.mail.wording import cldr

EXAMPLE = "PLAYGROUND_SERVICES"
"""An environment variable: the file with services that are shown where SERVICES_FILE is not set."""

BUILT_IN = Path(__file__).resolve().parents[2] / "app" / "templates" / "mail"

SCHEME = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(light|dark)\s*\)")


class Mails:
    """Reads services and templates, and makes the mails."""

    def __init__(self, settings: Settings) -> None:
        """`settings`: of the service that runs here."""
        example = os.environ.get(EXAMPLE, "")
        self._settings = replace(settings, services_file=settings.services_file or example)
        self._is_example = not settings.services_file and bool(example)

    def version(self) -> str:
        """Differs after each change of a file that mails are made of. Reads no template."""
        stamps = []
        for path in sorted(files(self._settings)):
            with suppress(OSError):
                found = path.stat()
                stamps.append((str(path), found.st_mtime_ns, found.st_size))
        return sha256(repr(stamps).encode()).hexdigest()[:16]

    def of(self, service_id: str) -> dict[str, Any]:
        """The services there are, and the mails of one, else of the first, in each language. `faults` name
        file, line and variable."""
        version, reading = self.version(), self._read()
        chosen = find(reading, service_id) or reading.services[0]
        mails, faults = mails_of(chosen)
        return {
            "version": version,
            "services": [{"id": service.id, "test": service.test} for service in reading.services],
            "example": self._is_example,
            "service": chosen.id,
            "mails": mails,
            "faults": [*(str(each) for each in reading.wrong), *faults],
        }

    def html(self, service_id: str, language: str, scheme: str) -> str | None:
        """The HTML part as it looks in a scheme, `light` or `dark`, or what is wrong with it; None where
        there is no such mail."""
        service = find(self._read(), service_id)
        try:
            if service and language in available(service):
                return in_scheme(shown(service, language).html, scheme)
        except SettingsError as error:  # it was right a moment ago, when the tab asked for this frame
            return f"<!doctype html><title>Error</title><pre>{escape(str(error))}</pre>"
        return None

    def _read(self) -> Reading:
        """The files as they are now. The service that runs here shares the built-in templates: what it has
        not composed yet, it makes of those that were read here last."""
        built_in.cache_clear()
        return read_disk(self._settings)


def files(settings: Settings) -> Iterator[Path]:
    """Every file that mails are made of."""
    folders = [BUILT_IN, *([Path(settings.mail_templates)] if settings.mail_templates else [])]
    if settings.services_file:
        file = Path(settings.services_file)
        yield file
        with suppress(Unreadable):
            tables, _ = parse(Source.on_disk(settings).text or "")
            folders += [file.parent / table["templates"] for table in tables.values() if "templates" in table]
    for folder in folders:
        with suppress(OSError):
            yield from folder.iterdir()


def find(reading: Reading, service_id: str) -> Service | None:
    return next((service for service in reading.services if service.id == service_id), None)


def mails_of(service: Service) -> tuple[list[dict[str, Any]], list[str]]:
    """A mail in each language, or in its place what is wrong with it; and what is wrong with all of them."""
    try:
        return [_mail(service, language) for language in sorted(available(service))], []
    except SettingsError as error:
        return [], str(error).splitlines()


def _mail(service: Service, language: str) -> dict[str, Any]:
    locale = cldr(language)
    name = (locale.display_name if locale else None) or language
    about = {"language": language, "name": name[:1].upper() + name[1:]}
    try:
        mail = shown(service, language)
    except SettingsError as error:
        return {**about, "faults": str(error).splitlines()}
    display, address = parseaddr(mail.sender)
    listed = {"sender": display or address, "subject": mail.subject}
    return {**about, **listed, "text": mail.text, "faults": []}


def shown(service: Service, language: str) -> ShownMail:
    """A sample mail. Raises SettingsError."""
    messages, registration = Messages(lambda _: service), sample(service, language)
    messages.mail(registration)  # composing finds more than showing does
    return messages.shown(registration)


def in_scheme(html: str, scheme: str) -> str:
    """The page as a mail program shows it in light or in dark. A page in a frame follows the browser, so what
    it asks about the scheme is answered here."""
    html = SCHEME.sub(lambda asked: "(min-width: 0)" if asked[1] == scheme else "(max-width: 0)", html)
    return html.replace("</head>", f"<style>:root {{ color-scheme: {scheme} !important }}</style></head>", 1)
