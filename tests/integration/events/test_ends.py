"""Registrations that reach their end."""

from collections.abc import Callable

import pytest
import redis

from app.repositories.keys import Field, keys_of
from tests.api.conftest import at_once
from tests.support.changes import EXPIRED, SENT, VERIFIED, erase, refuse, verified
from tests.support.scan import kinds
from tests.support.telling import Person
from tests.support.waiting import wait_until


def test_an_end_is_told_once(person: Person) -> None:
    """However many look for it, and not before it."""
    person.registered()
    assert person.process.events.expired(person.shards) == []
    assert not person.process.events.note_expiry(person.user_id)
    person.ended()
    told = at_once(16, person.swept)
    assert sum(told) == 1
    assert person.kinds == [EXPIRED]
    assert kinds(person.store).keys().isdisjoint({"expiry", "expiries"})


def test_an_end_by_time_to_live_is_told(person: Person) -> None:
    """As Redis itself ends a registration."""
    person.process.ttl_s = 1
    person.sent()
    assert wait_until(person.swept, 10) == 1
    assert person.kinds == [SENT, EXPIRED]
    assert person.told[1].at_ms == person.told[1].created_ms + 1000


def test_an_end_that_is_looked_at_too_early_is_looked_at_again(person: Person, store: redis.Redis) -> None:
    """The nodes of a cluster have clocks of their own."""
    person.registered()
    keys = keys_of(person.user_id)
    store.zadd(keys.expiries, {person.user_id: 1})
    assert person.swept() == 0
    assert person.process.events.expired(person.shards) == []
    person.ended()
    assert person.swept() == 1


@pytest.mark.parametrize("listens", [True, False])
def test_a_registration_made_after_an_end_tells_of_the_end_first(person: Person, listens: bool) -> None:
    """No sweep has seen it yet; nobody looks for it afterwards."""
    first = person.sent()
    person.ended()
    person.process.listens = listens
    person.sent()
    assert person.kinds == [SENT, EXPIRED, *[SENT] * listens]
    assert person.told[1].created_ms == first.registration.asked_for_ms
    assert person.swept() == 0
    assert kinds(person.store)["expiry"] == listens


@pytest.mark.parametrize("end", [verified, erase, refuse], ids=lambda end: end.__name__)
def test_what_else_ends_a_registration_leaves_no_end_behind(
    person: Person, end: Callable[[Person], None]
) -> None:
    """And so no event of one."""
    end(person)
    assert kinds(person.store).keys().isdisjoint({"expiry", "expiries"})


def test_an_end_that_is_not_told_yet_is_told_also_after_an_erasure(person: Person) -> None:
    """There was nothing left to erase."""
    person.registered()
    person.ended()
    assert not person.process.users.erase(person.user_id)
    assert person.swept() == 1


def test_an_end_of_a_registration_that_somebody_replaced_unheard_is_forgotten(
    person: Person, store: redis.Redis
) -> None:
    """A process of an earlier release, which knows nothing of ends. What is live now is not told as ended."""
    person.sent()
    store.hdel(keys_of(person.user_id).user, Field.TOLD)
    store.zadd(keys_of(person.user_id).expiries, {person.user_id: 1})
    assert person.swept() == 0
    assert kinds(store).keys().isdisjoint({"expiry", "expiries"})
    assert person.kinds == [SENT]


def test_a_registration_without_an_end_has_none_to_tell(person: Person) -> None:
    """NUMBER_TTL is 0."""
    person.process.ttl_s = 0
    person.sent()
    assert kinds(person.store).keys().isdisjoint({"expiry", "expiries"})


def test_the_order_holds_over_several_registrations(person: Person) -> None:
    """`created_at` tells which each event is of."""
    created = []
    for end in (person.ended, lambda: person.process.users.erase(person.user_id), person.ended):
        created.append(person.sent().registration.asked_for_ms)
        end()
    person.verified(person.sent())
    assert person.kinds == [SENT, EXPIRED, SENT, SENT, EXPIRED, SENT, VERIFIED]
    told = [event.created_ms for event in person.told]
    assert told[:5] == [created[0], created[0], created[1], created[2], created[2]]
