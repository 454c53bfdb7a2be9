"""What a mail says and how it looks: the door to languages, rendering and composing.

A service's mails are composed once for each language and filled in for each mail. Imports of the app only
`domain`, `errors` and the room.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple

from app.domain.number import grouped
from app.domain.registration import Registration
from app.domain.service import Service
from app.errors import ServiceUnknown, SettingsError
from app.mail.composing import Composed, compose, quoted
from app.mail.languages import available, built_in, chosen
from app.mail.rendering import render
from app.mail.wording import duration, moment

REFERENCE_LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ"
"""Without I and O, which read like digits."""

KEPT: Final = 2048
"""Compositions that are kept, of some 6 KB each: for a thousand services with two languages each. If they did
not fit, and mails of all services came in turn, each would be composed anew, at 4 ms."""

KEPT_WISHES: Final = 4096
"""Tags of callers for which the language is remembered."""


class Mail(NamedTuple):
    """One mail as it travels: envelope and content (CRLF lines, dots doubled as RFC 5321 §4.5.2 asks)."""

    sender: str
    recipient: str
    content: bytes


class ShownMail(NamedTuple):
    """One mail as it is read. `number`: its digits alone. `locale`: the language that was chosen."""

    to: str
    sender: str
    subject: str
    text: str
    html: str
    number: str
    locale: str


class Messages:
    """Fills in the mails of all services."""

    def __init__(
        self,
        service: Callable[[str], Service | None],
        bounce_address: str = "",
        tag: Callable[[Registration], str] | None = None,
    ) -> None:
        """`service`: gives the one with this id that is in force now. It must not change; after a reload
        there is another object. `bounce_address`: where reports of mails go; each mail brings its `tag`
        there, by which its report will be known."""
        built_in()  # now, so that what is installed later changes nothing for a service that runs
        self._service = service
        self._bounce_name, _, self._bounce_domain = bounce_address.rpartition("@")
        self._tag = tag
        self._language = lru_cache(KEPT_WISHES)(chosen)
        self._composed = lru_cache(KEPT)(_composed)

    def mail(self, registration: Registration) -> Mail:
        """The mail that brings the person the number. The same registration gives the same mail, but for the
        time that the number has left. Raises ServiceUnknown."""
        service = self._find(registration)
        language = self._language(service, registration.locale)
        composed = self._composed(service, language, registration.left_ms is None)
        recipient, sender, mail_id = registration.address.envelope, composed.sender, registration.mail_id
        if self._tag:
            mail_id = self._tag(registration)
            sender = f"{self._bounce_name}+{mail_id}@{self._bounce_domain}"
        asked_for_s = registration.asked_for_ms // 1000
        content = composed.content % {
            b"to": recipient.encode("ascii"),
            b"date": _date(asked_for_s),
            b"message_id": f"<{mail_id}@{composed.domain}>".encode(),
            b"number": grouped(registration.number).encode(),
            b"reference": reference(registration.registration_id).encode(),
            b"issued_at": _quoted(moment(language, asked_for_s)),
            b"duration": _quoted(duration(language, registration.left_ms or 0)),
        }
        return Mail(sender, recipient, content)

    def shown(self, registration: Registration) -> ShownMail:
        """The same mail for somebody who looks at it. Raises ServiceUnknown."""
        service = self._find(registration)
        language = chosen(service, registration.locale)
        said = render(service, language, endless=registration.left_ms is None).filled(
            {
                "number": grouped(registration.number),
                "reference": reference(registration.registration_id),
                "issued_at": moment(language, registration.asked_for_ms // 1000),
                "duration": duration(language, registration.left_ms or 0),
            }
        )
        return ShownMail(
            to=registration.address.email,
            sender=service.sender,
            subject=said.subject,
            text=said.text,
            html=said.html,
            number=registration.number,
            locale=language,
        )

    def _find(self, registration: Registration) -> Service:
        service = self._service(registration.service)
        if service is None:
            raise ServiceUnknown
        return service


def _composed(service: Service, language: str, endless: bool) -> Composed:
    return compose(service, language, render(service, language, endless=endless))


def faults(service: Service) -> list[str]:
    """What is wrong with the templates of a service: sentences that name file and line. Every mail that it
    can send is composed once."""
    found: list[str] = []
    try:
        languages = available(service)
    except SettingsError as error:
        return [str(error)]
    for language, endless in product(languages, (False, True)):
        try:
            _composed(service, language, endless)
        except SettingsError as error:
            found += str(error).splitlines()
    return list(dict.fromkeys(found))


_quoted = lru_cache(maxsize=1024)(quoted)


@lru_cache(maxsize=64)
def _date(unix_s: int) -> bytes:
    """A time as the Date header says it (RFC 5322 §3.3)."""
    return format_datetime(datetime.fromtimestamp(unix_s, UTC)).encode()


def reference(registration_id: str) -> str:
    """Two letters by which a person tells one mail from another."""
    first, second = divmod(int(registration_id, 16) % len(REFERENCE_LETTERS) ** 2, len(REFERENCE_LETTERS))
    return REFERENCE_LETTERS[first] + REFERENCE_LETTERS[second]
