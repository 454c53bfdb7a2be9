"""What happens to the registrations of a person, by hand, and which events are written of it."""

from collections.abc import Callable

from app.domain.registration import Delivery, EventKind
from app.domain.report import ReportKind
from tests.support.people import KEY, ada, age_mark
from tests.support.telling import Person
from tests.support.values import there

SENT, FAILED, VERIFIED, EXPIRED = EventKind.SENT, EventKind.FAILED, EventKind.VERIFIED, EventKind.EXPIRED
BOUNCED, COMPLAINED = EventKind.BOUNCED, EventKind.COMPLAINED


def sent(at: Person) -> None:
    at.sent()


def resent(at: Person) -> None:
    at.sent()
    at.settled(there(at.process.resent(ada())))


def failed(at: Person) -> None:
    at.settled(at.registered(), Delivery.FAILED)


def given_up(at: Person) -> None:
    """Its last attempt came after a day."""
    stored = at.registered()
    at.aged(24)
    assert at.settled(stored, Delivery.PENDING).delivery is Delivery.FAILED


def too_old(at: Person) -> None:
    """The mail server was away for a day."""
    at.registered(lease_ms=0)
    at.aged(24)
    assert at.process.outbox.claim(at.user_id, "me").mail_id == ""


def dropped(at: Person) -> None:
    at.registered(lease_ms=0)
    assert at.process.outbox.drop(at.user_id) == "dropped"


def refused_though_promised(at: Person) -> None:
    """A repetition of the request was answered 202."""
    stored = at.registered(key=KEY)
    age_mark(at.store, 60)
    at.process.outcome(ada(), key=KEY)
    assert at.settled(stored, Delivery.REFUSED).delivery is Delivery.FAILED


def bounced(at: Person) -> None:
    at.sent()
    at.reported()


def complained(at: Person) -> None:
    at.sent()
    at.reported(ReportKind.COMPLAINED)


def verified(at: Person) -> None:
    at.verified(at.sent())


def expired(at: Person) -> None:
    at.sent()
    at.ended()
    assert at.swept() == 1


CHANGES: dict[Callable[[Person], None], list[EventKind]] = {
    sent: [SENT],
    resent: [SENT, SENT],
    failed: [FAILED],
    given_up: [FAILED],
    too_old: [FAILED],
    dropped: [FAILED],
    refused_though_promised: [FAILED],
    bounced: [SENT, BOUNCED],
    complained: [SENT, COMPLAINED],
    verified: [SENT, VERIFIED],
    expired: [SENT, EXPIRED],
}
"""What happens, and of what the service is told."""


def refuse(at: Person) -> None:
    at.settled(at.registered(), Delivery.REFUSED)


def replace(at: Person) -> None:
    at.registered()
    at.registered()


def erase(at: Person) -> None:
    at.registered()
    assert at.process.users.erase(at.user_id)
