"""E-mail addresses: which are accepted, which are the same, and how they stand in an envelope.

Syntax is RFC 5321/5322 as `email-validator` reads it; domains are IDNA 2008, so `faß.de` stays itself
(`xn--fa-hia.de`) and does not become the `fass.de` of IDNA 2003.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, Self

from email_validator import EmailNotValidError, validate_email

from app.errors import InvalidAddress

# People share few domains, and reading one is most of the work: the library's own function, with a memory.
_library: Any = import_module("email_validator.validate_email")
_library.validate_email_domain_name = lru_cache(maxsize=4096)(_library.validate_email_domain_name)

MAX_LENGTH = 254
"""Characters in an address (RFC 5321 §4.5.3.1.3, erratum 1690)."""


@dataclass(frozen=True, slots=True)
class Address:
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

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads an address. Raises InvalidAddress, with the reason in words and without the address."""
        if len(text) > MAX_LENGTH:
            raise InvalidAddress(f"Longer than {MAX_LENGTH} characters.")
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
