"""E-mail addresses: which are accepted, which are the same, and how they stand in an envelope.

Syntax is RFC 5321/5322 as `email-validator` reads it; domains are IDNA 2008, so `faß.de` stays itself
(`xn--fa-hia.de`) and does not become the `fass.de` of IDNA 2003. Imports of the app only `errors`.
"""

import re
from typing import NamedTuple, Self

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

from app.errors import InvalidAddress

MAX_LENGTH = 254
"""Characters in an address (RFC 5321 §4.5.3.1.3, erratum 1690)."""

GMAIL = ("gmail.com", "googlemail.com")

_PLAIN = re.compile(
    r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*@"  # a dot-atom
    r"(?:(?!..--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+"  # labels, none of them xn-- or reserved
    r"[a-z]{2,63}"
)
"""What nearly everybody types, in lower case: email-validator would return it as it is."""

_SPECIAL = tuple(f"{before}{name}" for name in SPECIAL_USE_DOMAIN_NAMES for before in ".@")
"""Ends of addresses that email-validator refuses: .test, .invalid, .local and others."""


class Address(NamedTuple):
    """An accepted address.

    `email`: as given, with the domain lower-cased and normalised; what answers show.
    `envelope`: the same in ASCII; where mail goes.
    `identity`: lower-cased and ASCII; two addresses with the same identity are one user.
    """

    email: str
    envelope: str

    @property
    def identity(self) -> str:
        return self.envelope.lower()

    @property
    def mailbox(self) -> str:
        """The identity without what many mail servers ignore: a `+tag`, and at Gmail, of which googlemail.com
        is another name, the dots. Two addresses with the same mailbox are most likely one person."""
        local, _, domain = self.identity.rpartition("@")
        local = local.partition("+")[0] or local
        if domain in GMAIL:
            local, domain = local.replace(".", ""), GMAIL[0]
        return f"{local}@{domain}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads an address. Raises InvalidAddress, with the reason in words and without the address."""
        if len(text) > MAX_LENGTH:
            raise InvalidAddress(f"Longer than {MAX_LENGTH} characters.")
        return cls(email=text, envelope=text) if is_plain(text) else cls._parse(text)

    @classmethod
    def _parse(cls, text: str) -> Self:
        try:
            found = validate_email(text, check_deliverability=False, allow_smtputf8=False)
        except (EmailNotValidError, UnicodeError) as error:
            raise InvalidAddress("Not a valid e-mail address.") from error
        envelope = f"{found.local_part}@{found.ascii_domain}"
        if len(envelope) > MAX_LENGTH:
            raise InvalidAddress(f"Longer than {MAX_LENGTH} characters in ASCII.")
        return cls(email=found.normalized, envelope=envelope)

    @classmethod
    def known(cls, email: str) -> Self:
        """An address that was accepted before (`email` of `parse`), without judging it again."""
        return cls(email=email, envelope=email) if email.isascii() else cls.parse(email)


def is_plain(text: str) -> bool:
    """Whether email-validator, ten times as slow, would accept this text and change nothing. Of longer texts
    than `MAX_LENGTH` it knows nothing."""
    return _PLAIN.fullmatch(text) is not None and not text.endswith(_SPECIAL)
