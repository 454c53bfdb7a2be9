"""What the users of a shard share for their events: whatever stands there, registrations and mails go on."""

from collections.abc import Iterator

import pytest
import redis

from app.domain.address import Address
from app.domain.registration import Delivery, EventKind
from tests.support.people import Process
from tests.support.scan import contradictions
from tests.support.servers import Valkey
from tests.support.telling import Person
from tests.support.values import there

SENT, VERIFIED = EventKind.SENT, EventKind.VERIFIED
SHARED = ("schedule", "waiting", "expiries")


@pytest.fixture
def person(valkey_server: Valkey, store: redis.Redis) -> Iterator[Person]:
    process = Process(valkey_server.url, limit=0, listens=True)
    yield Person(process, store, Address.parse("ada@example.com"))
    process.close()


@pytest.fixture(params=SHARED)
def _spoiled(request: pytest.FixtureRequest, person: Person) -> None:
    """In the place of one of these keys there is something else."""
    key = getattr(person.process.keys(person.address), request.param)
    person.store.set(key, "somebody else's", px=60_000)


def mended(person: Person, kind: str) -> None:
    """What the operator does."""
    person.store.delete(getattr(person.process.keys(person.address), kind))


@pytest.mark.usefixtures("_spoiled")
def test_registrations_and_mails_go_on(person: Person) -> None:
    """From registering and mailing, also again, to bounces, numbers that are handed in and erasures."""
    person.sent()
    stored = person.registered()
    person.settled(stored, Delivery.PENDING)
    assert person.process.outbox.retry(person.user_id)
    claim = person.process.outbox.claim(person.user_id, "relay")
    assert claim.registration is not None
    settled = person.process.outbox.settle(person.user_id, claim.mail_id, "relay", Delivery.SENT)
    assert settled.delivery is Delivery.SENT
    person.reported()
    person.settled(there(person.process.resent(person.address)))
    person.verified(stored)
    person.sent()
    assert person.process.users.erase(person.user_id)
    person.settled(person.registered(), Delivery.REFUSED)
    assert person.process.users.find(person.user_id) is None


def test_what_is_not_counted_is_told_all_the_same(person: Person) -> None:
    """And the counts are right again as soon as it was delivered."""
    key = person.process.keys(person.address).waiting
    person.store.set(key, "somebody else's", px=60_000)
    person.verified(person.sent())
    assert person.delivered() == [SENT, VERIFIED]
    person.sent()
    mended(person, "waiting")
    assert person.delivered() == [SENT]
    person.sent()
    assert contradictions(person.store) == []


def test_what_cannot_be_scheduled_is_left_out_and_counted(person: Person) -> None:
    """As what comes while too many events wait."""
    person.store.set(person.process.keys(person.address).schedule, "somebody else's", px=60_000)
    person.verified(person.sent())
    assert person.kinds == []
    assert person.process.events.count().dropped[person.process.name] == 2
    mended(person, "schedule")
    person.verified(person.sent())
    assert person.delivered() == [SENT, VERIFIED]
    assert contradictions(person.store) == []


def test_an_end_that_is_not_among_the_others_is_told_by_the_next_registration(person: Person) -> None:
    """Nothing but that finds it."""
    keys = person.process.keys(person.address)
    person.store.set(keys.expiries, "somebody else's", px=60_000)
    person.sent()
    mended(person, "expiries")
    assert person.process.events.expired(person.shards) == []
    person.ended()
    mended(person, "expiries")
    person.sent()
    assert person.delivered() == [SENT, EventKind.EXPIRED, SENT]
    assert contradictions(person.store) == []
