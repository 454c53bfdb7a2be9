"""How long what waits is kept, whatever the clock of Redis does."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import redis

from app.repositories.events import Left
from app.repositories.keys import keys_of
from app.repositories.scripts import LONGEST_EVENT_WAIT_MS
from tests.support.changes import (
    SENT,
    VERIFIED,
    sent,
    verified,
)
from tests.support.people import HOUR_MS, Process, ada
from tests.support.telling import KINDS_OF_KEY, Person, text_of
from tests.support.values import text


def set_back(store: redis.Redis, person: Person) -> None:
    """What Redis looks like when its clock is set back an hour."""
    keys = keys_of(person.user_id)
    store.zincrby(keys.schedule, HOUR_MS, text_of(person.queue))
    store.hincrby(keys.waiting, "default:full", HOUR_MS)


@pytest.mark.parametrize("claimed", [True, False])
def test_no_event_waits_for_a_clock_that_was_set_back(
    person: Person, store: redis.Redis, claimed: bool
) -> None:
    """Neither one that is put off, nor one whose courier has died; and none is left out for an hour."""
    stored = person.sent()
    claim = person.claimed()
    if not claimed:
        person.process.events.settle(person.queue, claim, wait_ms=LONGEST_EVENT_WAIT_MS)
    assert person.process.events.due_never(person.shards) == []
    person.process.events.leave_out("default")
    set_back(store, person)
    assert person.process.events.due(person.shards) == []
    assert person.process.events.due_never(person.shards) == [person.queue]
    person.verified(stored)
    assert person.delivered() == [SENT, VERIFIED]
    assert person.process.events.settle(person.queue, claim) is Left.LOST


def test_everything_ends_by_itself(person: Person, here: Process, store: redis.Redis) -> None:
    """Whatever is done, each key has a time to live, also where the schedule had this user only."""
    deeds: list[Callable[[], Any]] = [
        lambda: verified(person),
        lambda: here.events.settle(person.queue, person.claimed()),
        lambda: here.events.settle(person.queue, person.claimed(), wait_ms=0),
        lambda: here.events.wake(["default"], person.shards),
        lambda: store.delete(keys_of(person.user_id).schedule),
        person.claimed,
        person.registered,
        person.ended,
        person.swept,
        lambda: here.events.leave_out("default"),
        here.events.count,
        lambda: here.events.publish(here.events.count().waiting),
        lambda: here.events.note_receiver("default", "failing"),
        lambda: here.events.hold_relay("me", 1000),
        lambda: here.events.drop(person.queue),
    ]
    for deed in deeds:
        deed()
        for kind, key in itertools.product((*KINDS_OF_KEY, "receivers", "event-relay"), store.scan_iter()):
            if text(key).split(":")[1] == kind:
                assert store.pttl(key) > 0, (deed, key)
    assert here.events.count() == ({}, {})


def test_what_waits_lives_as_long_as_somebody_works_on_it(
    person: Person, here: Process, store: redis.Redis
) -> None:
    """A list that ended would be counted for ever, so that at last its service counts as full; one whose
    schedule ended would not be found."""
    sent(person)
    keys = keys_of(person.user_id)
    deeds: list[Callable[[], Any]] = [person.claimed, lambda: here.events.put_off([person.queue], 1000)]
    for deed in deeds:
        for key in (keys.events, keys.schedule):
            store.expire(key, 60)
        deed()
        for key in (keys.events, keys.schedule):
            assert store.pttl(key) > 6 * 24 * HOUR_MS


def test_an_end_is_kept_for_a_week_after_it(person: Person, here: Process, store: redis.Redis) -> None:
    """For a service that stands still for so long. A shorter life makes those before it no shorter."""
    person.registered()
    keys = keys_of(person.user_id)
    week_ms = 7 * 24 * HOUR_MS
    for key in (keys.expiry, keys.expiries):
        assert week_ms < store.pttl(key) <= week_ms + HOUR_MS
    dataclasses.replace(here, name="shop", ttl_s=60).registered(ada())
    assert store.zcard(keys.expiries) == 2
    assert store.pttl(keys.expiries) > week_ms + HOUR_MS // 2
