"""What the layers hand to each other about one registration."""

from enum import StrEnum
from typing import NamedTuple

from app.domain.address import Address

USER_ID = "[a-z2-7]{26}"
"""A regular expression for user ids: 26 characters of base32, so `verify` is none."""


class Delivery(StrEnum):
    """Where the mail of a registration stands: for attempts, records, answers, metrics."""

    SENT = "sent"  # the mail server has accepted it
    PENDING = "pending"  # it is owed, and tried (again)
    FAILED = "failed"  # it was given up; the registration stays
    REFUSED = "refused"  # the mail server refused the address for good; nothing stays registered


class Cause(NamedTuple):
    """The request that caused a mail, for the log. `caller`: the name of its API key, empty without one."""

    request_id: str = ""
    caller: str = ""


class Registration(NamedTuple):
    """One registration of one address, as the process that stored or claimed it holds it in memory.

    `user_id`: the name of the address, 26 characters. `registration_id`: fresh for every registration.
    `locale`: the BCP 47 tag that the request named, or empty. `created_ms`: Unix time in milliseconds by the
    clock of Redis. `service`: the id of the service that asked. `test`: made by a test service, so it is
    never mailed. `left_ms`: how long the number was still good when it was stored or claimed; None = until
    used. `resends`: how often the mail was asked for again.
    """

    user_id: str
    registration_id: str
    address: Address
    number: str
    locale: str
    created_ms: int
    attempts: int = 0
    service: str = "default"
    test: bool = False
    left_ms: int | None = None
    resends: int = 0

    @property
    def mail_id(self) -> str:
        """What names the mail: the same for each attempt at it, another for each resend."""
        return f"{self.registration_id}-{self.resends}" if self.resends else self.registration_id


class Draft(NamedTuple):
    """A registration before it has a number."""

    address: Address
    token: str
    locale: str


class Stored(NamedTuple):
    """A registration that was just made. `owner` names its lease, None where another sender holds it."""

    registration: Registration
    owner: str | None


class Registered(NamedTuple):
    """What a registration came to, for its caller. `created_ms`: Unix ms."""

    user_id: str
    delivery: Delivery
    created_ms: int


class UserRecord(NamedTuple):
    """What is known of a registration, for those who ask. Times in Unix ms."""

    user_id: str
    email: str
    delivery: Delivery
    created_ms: int
    attempts: int
    expires_ms: int | None
    mailed_ms: int | None
    error: str | None
