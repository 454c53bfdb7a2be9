"""Mails of services with every look, in every language, as their receivers read them."""

import email
import email.policy
import re
from collections.abc import Iterator
from dataclasses import replace
from email.message import EmailMessage
from itertools import product

from app.domain.address import Address
from app.domain.registration import Registration
from app.domain.service import Service
from app.mail.languages import available
from app.mail.messages import Mail, Messages

SHOP = Service(
    id="shop",
    name="Acme Shop",
    sender="Acme <no-reply@acme.example>",
    support="help@acme.example",
    color="#0b6e4f",
    logo="https://acme.example/logo.png",
)
PLAIN = Service(id="shop", name="Acme Shop", sender="Acme <no-reply@acme.example>")

LANGUAGES = available(PLAIN)
TEN_MINUTES_MS = 600_000

REGISTRATION = Registration(
    user_id="a" * 26,
    registration_id="0123456789abcdef0123",
    address=Address.parse("ada@faß.de"),
    number="4821093753",
    locale="en",
    asked_for_ms=1_700_000_000_123,
    service="shop",
    left_ms=TEN_MINUTES_MS,
)


def messages(service: Service = SHOP) -> Messages:
    """The messages of a directory with one service."""
    return Messages({service.id: service}.get)


def every_mail() -> Iterator[tuple[str, Service, Registration]]:
    """A name, a service and a registration for each thing that a mail may be."""
    for language, service, subject_number, left_ms in product(
        LANGUAGES, (SHOP, PLAIN), (False, True), (TEN_MINUTES_MS, None)
    ):
        looks = "branded" if service is SHOP else "plain"
        name = f"{language}-{looks}{'-number' * subject_number}{'-endless' * (left_ms is None)}"
        yield (
            name,
            replace(service, subject_number=subject_number),
            REGISTRATION._replace(locale=language, left_ms=left_ms),
        )


def parsed(mail: Mail) -> EmailMessage:
    """The mail as its receiver reads it, without the doubled dots of the SMTP conversation."""
    content = re.sub(rb"(?m)^\.\.", b".", mail.content)
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert [part.defects for part in message.walk() if part.defects] == []
    return message


def text_of(mail: Mail, kind: str) -> str:
    """The `plain` or the `html` part."""
    part = parsed(mail).get_body((kind,))
    assert part is not None
    content: str = part.get_content()
    return content.replace("\r\n", "\n")
