"""How many events wait, and what is left out."""

import dataclasses
from collections import Counter

import pytest
import redis

from app.repositories.events import FULL_MS
from app.repositories.keys import EVENTS_WAITING, keys_of
from tests.support.changes import (
    SENT,
    sent,
    verified,
)
from tests.support.people import Process, ada
from tests.support.telling import Person
from tests.support.values import text


def test_what_waits_is_counted_by_service(person: Person, here: Process) -> None:
    """Over all shards; what was counted is left to whoever asks."""
    shop = dataclasses.replace(here, name="shop")
    verified(person)
    sent(Person(shop, person.store, ada()))
    waiting, dropped = here.events.count()
    assert (waiting, dropped) == ({"default": 2, "shop": 1}, {})
    assert here.events.published() == {}
    here.events.publish(waiting)
    assert here.events.published() == {"default": 2, "shop": 1}
    shop.close()


@pytest.mark.parametrize("value", ["x", "[]", '{"shop": "x"}', '{"shop": null}'])
def test_what_was_counted_is_unknown_where_somebody_else_wrote_it(
    here: Process, store: redis.Redis, value: str
) -> None:
    """Metrics are told all the same; also where names are none."""
    store.set(EVENTS_WAITING, value, ex=60)
    assert here.events.published() == {}
    here.events.publish(Counter({"no name": 1}))
    assert here.events.published() == {"no name": 1}


def test_further_events_of_a_service_with_too_many_are_left_out_and_counted(
    person: Person, here: Process, store: redis.Redis
) -> None:
    """Registrations go on, and other services' events do. It ends by itself."""
    shop = dataclasses.replace(here, name="shop")
    shopper = Person(shop, store, ada())
    stored = person.sent()
    here.events.leave_out("default")
    person.verified(stored)
    sent(shopper)
    assert (person.kinds, shopper.kinds) == ([SENT], [SENT])
    assert here.events.count().dropped == {"default": 1}
    assert here.events.count().dropped == {}
    waiting = keys_of(person.user_id).waiting
    assert 0 < int(text(store.hget(waiting, "default:full"))) - here.outbox.now_ms() <= FULL_MS
    store.hincrby(waiting, "default:full", -FULL_MS)
    sent(person)
    assert person.kinds == [SENT, SENT]
    shop.close()


@pytest.mark.parametrize("value", ["x", "", "1e999"])
@pytest.mark.parametrize("name", ["default", "default:full", "default:dropped"])
def test_a_count_that_is_no_number_stops_nothing(
    person: Person, here: Process, store: redis.Redis, name: str, value: str
) -> None:
    """Registrations go on, whatever is wrong with what waits."""
    waiting = keys_of(person.user_id).waiting
    store.hset(waiting, name, value)
    stored = person.sent()
    here.events.leave_out("default")
    person.verified(stored)
    assert here.events.count().waiting["default"] in (0, 1)
    store.hset(waiting, "default", 1)
    store.hset(waiting, "default:dropped", 0)
