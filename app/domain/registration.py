"""What the layers hand to each other about one registration."""

from dataclasses import dataclass
from enum import StrEnum

from app.domain.address import Address


class Delivery(StrEnum):
    """Where the mail of a registration stands: for attempts, records, answers, metrics."""

    SENT = "sent"  # the mail server has accepted it
    PENDING = "pending"  # it is owed, and tried (again)
    FAILED = "failed"  # it was given up; the registration stays
    REFUSED = "refused"  # the mail server refused the address for good; nothing stays registered


@dataclass(frozen=True, slots=True)
class Cause:
    """The request that caused a mail, for the log. `caller`: the name of its API key, empty without one."""

    request_id: str = ""
    caller: str = ""


@dataclass(frozen=True, slots=True)
class Registration:
    """One registration of one address, as the process that stored or claimed it holds it in memory.

    `user_id`: the name of the address, 26 characters. `registration_id`: fresh for every registration;
    it also names the mail. `created_ms`: Unix time in milliseconds by the clock of Redis.
    """

    user_id: str
    registration_id: str
    address: Address
    number: str
    locale: str
    created_ms: int
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """So many in a window of time; the window begins with the first. `amount` 0 = no limit."""

    amount: int = 0
    window_s: int = 0

    @property
    def window_ms(self) -> int:
        return self.window_s * 1000


@dataclass(frozen=True, slots=True)
class Draft:
    """A registration before it has a number."""

    address: Address
    token: str
    locale: str


@dataclass(frozen=True, slots=True)
class Stored:
    """What a registration came to. `owner` names the lease, None where another sender holds it."""

    registration: Registration
    owner: str | None


@dataclass(frozen=True, slots=True)
class Replayed:
    """The request was carried out before; this is what it came to."""

    user_id: str
    delivery: Delivery
    created_ms: int


@dataclass(frozen=True, slots=True)
class UserRecord:
    """What is known of a registration, for those who ask. Times in Unix ms."""

    user_id: str
    email: str
    delivery: Delivery
    created_ms: int
    attempts: int
    expires_ms: int | None
    mailed_ms: int | None
    error: str | None
