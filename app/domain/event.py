"""Events: what a service is told of its registrations, as it happens."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the events of a service go. `secrets`: `whsec_…` of Standard Webhooks, one or, while they rotate,
    two; each signs. `private`: its name may lead to a private address."""

    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    private: bool = False


def nobody(_service_id: str, _user_id: str, _stage: object) -> None:
    """For whoever has nobody to tell how far a registration has come."""
