"""What the layers hand to each other about one registration: its states, its mail, its events, its times."""

from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from app.domain.address import Address
from app.domain.service import Service

USER_ID = "[a-z2-7]{26}"
"""A regular expression for user ids: 26 characters of base32, so `verify` is none."""


class Delivery(StrEnum):
    """Where the mail of a registration stands: for attempts, records, answers, metrics."""

    SENT = "sent"  # the mail server has accepted it
    PENDING = "pending"  # it is owed, and tried (again)
    FAILED = "failed"  # it was given up; the registration stays
    BOUNCED = "bounced"  # it was accepted, and came back for good
    COMPLAINED = "complained"  # it was accepted, and the person called it unwanted
    REFUSED = "refused"  # the mail server refused the address for good; nothing stays registered


class Cause(NamedTuple):
    """The request that caused a mail, for logs and traces. `caller`: the name of its API key, empty without
    one. `traceparent`: of the step that asked for it (W3C Trace Context), empty where nothing is traced."""

    request_id: str = ""
    caller: str = ""
    traceparent: str = ""


class Registration(NamedTuple):
    """One registration of one address, as the process that stored or claimed it holds it in memory.

    `user_id`: the name of the address, 26 characters. `registration_id`: fresh for every registration.
    `locale`: the BCP 47 tag that the request named, or empty. `asked_for_ms`: when its mail was
    asked for, by registering or again; Unix time in milliseconds by the clock of Redis. `service`: the id of
    the service that asked. `test`: made by a test service, so it is never mailed. `left_ms`: how long the
    number was still good when it was stored or claimed; None = until used. `resends`: how often the mail was
    asked for again.
    """

    user_id: str
    registration_id: str
    address: Address
    number: str
    locale: str
    asked_for_ms: int
    service: str
    attempts: int = 0
    test: bool = False
    left_ms: int | None = None
    resends: int = 0

    @property
    def mail_id(self) -> str:
        return mail_id(self.registration_id, self.resends)


def mail_id(registration_id: str, resends: int) -> str:
    """Names a mail: the same for each attempt, another for each resend."""
    return f"{registration_id}-{resends}" if resends else registration_id


class Draft(NamedTuple):
    """A registration before it has a number. `locale`: the BCP 47 tag that the request named, or empty."""

    address: Address
    token: str
    locale: str
    service: Service


class Contents(NamedTuple):
    """What a record holds under its seal. `service`: the id of the service that asked. `test`: it was a test
    service then."""

    service: str
    test: bool
    locale: str
    number: str
    address: Address
    token: str

    def registration(
        self,
        user_id: str,
        registration_id: str,
        asked_for_ms: int,
        attempts: int,
        resends: int,
        left_ms: int | None,
    ) -> Registration:
        """The registration to which this belongs."""
        return Registration(
            user_id=user_id,
            registration_id=registration_id,
            address=self.address,
            number=self.number,
            locale=self.locale,
            asked_for_ms=asked_for_ms,
            attempts=attempts,
            service=self.service,
            test=self.test,
            left_ms=left_ms,
            resends=resends,
        )


class Stored(NamedTuple):
    """A registration that was just made. `owner` names its lease, None where another sender holds it."""

    registration: Registration
    owner: str | None


class Registered(NamedTuple):
    """What a registration came to, for its caller. Times in Unix ms; `expires_ms` None = it has no end."""

    user_id: str
    delivery: Delivery
    created_ms: int
    expires_ms: int | None = None


class UserRecord(NamedTuple):
    """A registration as it was read. Times in Unix ms; `reported_ms`: when its mail was reported to have
    bounced or to be unwanted, None if not."""

    user_id: str
    registration_id: str
    contents: Contents
    delivery: Delivery
    created_ms: int
    attempts: int
    expires_ms: int | None
    mailed_ms: int | None
    error: str | None
    resends: int
    reported_ms: int | None = None

    @property
    def email(self) -> str:
        return self.contents.address.email

    def registration(self, asked_for_ms: int, left_ms: int | None) -> Registration:
        """The same, to be mailed. Arguments: as in `Registration`."""
        return self.contents.registration(
            self.user_id, self.registration_id, asked_for_ms, self.attempts, self.resends, left_ms
        )

    def as_mailed(self) -> Registration | None:
        """The same as it was when the mail server accepted its mail; None before that."""
        if self.mailed_ms is None:
            return None
        left_ms = None if self.expires_ms is None else self.expires_ms - self.mailed_ms
        return self.registration(self.mailed_ms, left_ms)


class EventKind(StrEnum):
    """What happened to a registration."""

    SENT = "sent"  # the mail server has accepted a mail with its number
    FAILED = "failed"  # its mail was given up
    BOUNCED = "bounced"  # its mail came back for good
    COMPLAINED = "complained"  # the person called its mail unwanted
    VERIFIED = "verified"  # its number was handed in
    EXPIRED = "expired"  # its number has reached its end

    @property
    def type(self) -> str:
        """Its name for the receiver, as Standard Webhooks wants it: dots between."""
        return f"registration.{self}"


class Event(NamedTuple):
    """One event of one registration.

    `event_id`: the same for each attempt to deliver it. Times in Unix ms by the clock of Redis; `created_ms`:
    of the registration.
    """

    event_id: str
    kind: EventKind
    at_ms: int
    user_id: str
    created_ms: int


def rfc3339(unix_ms: int) -> str:
    """`2026-11-22T16:53:29.123Z` (RFC 3339)."""
    return f"{_second(unix_ms // 1000)}.{unix_ms % 1000:03}Z"


@lru_cache(maxsize=8)
def _second(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%S}"
