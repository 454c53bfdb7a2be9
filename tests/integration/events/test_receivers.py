"""What is kept of receivers, and for events in a record."""

import dataclasses

import redis

from app.repositories.keys import RECEIVERS, Field, keys_of
from tests.support.people import Process
from tests.support.telling import Person


def test_all_processes_know_the_same_of_receivers(here: Process, store: redis.Redis) -> None:
    """Until one of them forgets it."""
    other = dataclasses.replace(here)
    for service in ("default", "shop", "bank"):
        here.events.note_receiver(service, "failing")
    assert other.events.receivers() == dict.fromkeys(("default", "shop", "bank"), "failing")
    other.events.forget_receivers(["default", "bank"])
    assert here.events.receivers() == {"shop": "failing"}
    other.close()


def test_what_is_known_of_receivers_is_kept_while_somebody_sweeps(here: Process, store: redis.Redis) -> None:
    """A receiver that wants no more events gets none also days later."""
    here.events.note_receiver("default", "gone")
    store.expire(RECEIVERS, 60)
    here.events.keep_receivers()
    assert store.ttl(RECEIVERS) > 24 * 3600


def test_a_spoiled_key_of_receivers_is_made_anew(here: Process, store: redis.Redis) -> None:
    """It is found out again which of them fail."""
    store.set(RECEIVERS, "x", ex=60)
    assert here.events.receivers() == {}
    here.events.note_receiver("default", "failing")
    assert here.events.receivers() == {"default": "failing"}


def test_a_record_has_what_events_need_where_they_are_wanted(person: Person, store: redis.Redis) -> None:
    """And not a byte more than before where they are not."""
    person.sent()
    record = store.hgetall(keys_of(person.user_id).user)
    assert (record[b"u"], record[b"h"]) == (b"default", b"0")
    person.process.listens = False
    person.sent()
    assert store.hgetall(keys_of(person.user_id).user).keys().isdisjoint({b"u", b"h", b"z"})
    assert {Field.TOLD.value, Field.HEARD.value, Field.TEST.value} == {"u", "h", "z"}
