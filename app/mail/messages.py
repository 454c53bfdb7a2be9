"""What a mail says. Composed once for each locale, filled in for each mail.

Composing a MIME message takes 1.5 ms, several times the rest of a registration. So each locale's message
is composed once, with placeholders, and becomes a format that each mail fills with its own values.
"""

import re
from datetime import UTC, datetime
from email.charset import QP, Charset
from email.header import Header
from email.utils import format_datetime, formataddr, parseaddr
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import flask_mail
from jinja2 import (
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    StrictUndefined,
    TemplateError,
    select_autoescape,
)

from app.domain.number import grouped
from app.domain.registration import Registration
from app.errors import SettingsError

NUMBER_MESSAGE = "number"
REFERENCE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
"""Without I and O, which read like digits."""

_PLACEHOLDERS = {
    "to": "xxTOxx",
    "date": "xxDATExx",
    "message_id": "xxMESSAGEIDxx",
    "number": "xxNUMBERxxxxxx",
    "reference": "xxREFxx",
    "issued_at": "xxISSUEDATxxxxxxxxxxxxx",
}
"""As long as what they stand for, and nothing that MIME encodes."""

UTF_8 = Charset("utf-8")
UTF_8.header_encoding = UTF_8.body_encoding = QP
"""Quoted-printable instead of Flask-Mail's 8bit: a mail that every server takes, and the placeholders stay
readable in it."""


class Mail(NamedTuple):
    """One mail as it travels: envelope and content (CRLF lines, dots doubled as RFC 5321 §4.5.2 asks)."""

    sender: str
    recipient: str
    content: bytes


class Messages:
    """Fills in the mails of a service with one sender."""

    def __init__(self, sender: str, locales: tuple[str, ...], overrides: str = "") -> None:
        """`overrides`: a folder whose files replace the built-in templates.

        Raises SettingsError when a template cannot be used, now and not at the first mail.
        """
        name, self._sender = parseaddr(sender)
        self._from = (
            formataddr((name, self._sender))
            if name.isascii()
            else f"{_header_text('From', name)} <{self._sender}>"
        )
        self._domain = self._sender.rpartition("@")[2]
        loaders = [FileSystemLoader(Path(overrides))] if overrides else []
        self._templates = Environment(
            loader=ChoiceLoader([*loaders, PackageLoader("app", "templates/mail")]),
            autoescape=select_autoescape(("html",)),
            undefined=StrictUndefined,
            trim_blocks=True,
        )
        self._formats = {locale: self._compose(locale) for locale in locales}

    def mail(self, registration: Registration) -> Mail:
        """The mail that brings the person the number. The same registration gives the same mail."""
        recipient = registration.address.envelope
        date, issued_at = _moment(registration.created_ms // 1000)
        content = self._formats.get(registration.locale[:2], self._formats["en"]) % {
            b"to": recipient.encode("ascii"),
            b"date": date,
            b"message_id": f"<{registration.registration_id}@{self._domain}>".encode(),
            b"number": grouped(registration.number).encode(),
            b"reference": reference(registration.registration_id).encode(),
            b"issued_at": issued_at,
        }
        return Mail(self._sender, recipient, content)

    def _compose(self, locale: str) -> bytes:
        """The message of a locale, a format with `%(name)b` for each placeholder."""
        subject = " ".join(self._render(locale, "subject.txt").split())
        body, html = self._render(locale, "body.txt"), self._render(locale, "body.html")
        message = flask_mail.Message(
            subject=subject,
            recipients=[_PLACEHOLDERS["to"]],
            sender=self._sender,
            body=body,
            html=html,
            charset=UTF_8,  # type: ignore[arg-type] # MIMEText and Header, which get it, take one (since 3.5)
            extra_headers={
                "Auto-Submitted": "auto-generated",
                "Content-Language": locale,
                "X-Auto-Response-Suppress": "All",
            },
        )
        message.date = 0
        message.msgId = _PLACEHOLDERS["message_id"]
        text = message.as_bytes()
        # Flask-Mail encodes an encoded name once more, and breaks long encoded headers inside a word.
        text = _with_header(text, "From", self._from)
        text = _with_header(text, "Subject", _header_text("Subject", subject))
        text = _with_header(text, "Date", _PLACEHOLDERS["date"])
        text = re.sub(rb"\r?\n", b"\r\n", text)
        text = re.sub(rb"(?m)^\.", b"..", text)
        _check(f"{NUMBER_MESSAGE}/{locale}", subject, body, html, text)
        text = text.replace(b"%", b"%%")
        for name, token in _PLACEHOLDERS.items():
            text = text.replace(token.encode(), b"%%(%b)b" % name.encode())
        return text

    def _render(self, locale: str, part: str) -> str:
        template = f"{NUMBER_MESSAGE}/{locale}/{part}"
        try:
            return self._templates.get_template(template).render(
                {name: _PLACEHOLDERS[name] for name in ("number", "reference", "issued_at")}
            )
        except (TemplateError, OSError, UnicodeError) as error:
            raise SettingsError(
                f"The mail template {template} cannot be used: {type(error).__name__}"
            ) from error


@lru_cache(maxsize=8)
def _moment(unix_s: int) -> tuple[bytes, bytes]:
    """A time as the Date header says it (RFC 5322 §3.3), and as a person reads it."""
    moment = datetime.fromtimestamp(unix_s, UTC)
    return format_datetime(moment).encode(), f"{moment:%Y-%m-%d %H:%M:%S} UTC".encode()


def _check(folder: str, subject: str, body: str, html: str, composed: bytes) -> None:
    """Raises SettingsError where a person would not see what the templates show."""
    if not (_PLACEHOLDERS["number"] in body and _PLACEHOLDERS["number"] in html):
        raise SettingsError(f"The mail templates of {folder} do not show {{{{ number }}}} in both bodies.")
    for name in ("number", "reference", "issued_at"):
        shown = sum(part.count(_PLACEHOLDERS[name]) for part in (subject, body, html))
        if composed.count(_PLACEHOLDERS[name].encode()) != shown:
            raise SettingsError(
                f"The mail templates of {folder} show {{{{ {name} }}}} in a line that is too long: give it a "
                "line of its own."
            )


def _header_text(name: str, text: str) -> str:
    """The text of a header in ASCII, in lines that are short enough (RFC 2047)."""
    return text if text.isascii() else Header(text, UTF_8, header_name=name).encode()


def _with_header(message: bytes, name: str, value: str) -> bytes:
    """The message with another value in one of its headers."""
    line = f"{name}: {value}".encode("ascii")
    return re.sub(rb"(?m)^" + name.encode() + rb": .*$(?:\r?\n[ \t].*$)*", lambda _: line, message, count=1)


def reference(registration_id: str) -> str:
    """Two letters by which a person tells one mail from another."""
    first, second = divmod(int(registration_id, 16) % len(REFERENCE_LETTERS) ** 2, len(REFERENCE_LETTERS))
    return REFERENCE_LETTERS[first] + REFERENCE_LETTERS[second]
