"""The mails of all services: the door to languages, rendering and composing.

A service's mails are composed once for each language, and filled in for each registration. Imports of the app
only `domain`, `errors` and the room.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple

from app.domain.address import Address
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

SAMPLE_NUMBER: Final = "4821093753"

KEPT: Final = 2048
"""Compositions that are kept, of some 6 KB each: for a thousand services with two languages each. With fewer,
and mails of all services in turn, each mail would be composed anew, in 4 ms."""

KEPT_WISHES: Final = 4096
"""Tags of callers for which the language is remembered."""


class Mail(NamedTuple):
    """One mail as it travels: envelope and content (CRLF lines, leading dots doubled: RFC 5321 §4.5.2)."""

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
        """`service`: gives the service with an id that is in force now; the object must not change, and a
        reload makes another one. `bounce_address`: where reports of mails go; each mail's own address there
        holds its `tag`, by which its report is recognized."""
        built_in()  # now, so that an installation later changes nothing for a service that runs
        self._service = service
        self._bounce_name, _, self._bounce_domain = bounce_address.rpartition("@")
        self._tag = tag
        self._language = lru_cache(KEPT_WISHES)(chosen)
        self._composed = lru_cache(KEPT)(_composed)

    def mail(self, registration: Registration) -> Mail:
        """The mail with the number. The same registration gives the same mail, but for the time that the
        number has left. Raises ServiceUnknown."""
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
        """The same mail as a person reads it. Raises ServiceUnknown."""
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


def faults(service: Service, languages: Sequence[str] | None = None) -> list[str]:
    """What is wrong with the templates of a service: sentences that name file and line. Composes every mail
    that it can send, or of these those in some languages."""
    found: list[str] = []
    try:
        known = available(service)
    except SettingsError as error:
        return [str(error)]
    wanted = known if languages is None else [each for each in known if each in languages]
    for language, endless in product(wanted, (False, True)):
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


def sample(service: Service, locale: str) -> Registration:
    """An invented registration of this moment, for looking at mails. `locale`: a language tag, or empty."""
    return Registration(
        user_id="a" * 26,
        registration_id="0123456789abcdef0123",
        address=Address.known("ada@example.com"),
        number=SAMPLE_NUMBER,
        locale=locale,
        asked_for_ms=int(time.time() * 1000),
        service=service.id,
        left_ms=service.ttl_ms or None,
    )
