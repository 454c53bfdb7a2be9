"""How events are handed out, one at a time for each user."""

import dataclasses

import pytest
import redis

from app.domain.registration import Stored
from app.repositories.events import CROWD, USERS_A_SHARD, Left
from app.repositories.keys import PAIRS, keys_of, shard_keys
from app.repositories.scripts import CLAIM_MS, LONGEST_EVENT_WAIT_MS
from tests.api.conftest import at_once, race
from tests.support.changes import (
    SENT,
    VERIFIED,
    sent,
    verified,
)
from tests.support.faults.redis import everything
from tests.support.people import Process, ada
from tests.support.scan import kinds
from tests.support.telling import Person, text_of
from tests.support.values import there
from tests.support.waiting import wait_until


def test_one_of_many_gets_an_event(person: Person) -> None:
    """Also where the script cache is lost just then."""
    for _ in range(10):
        person.sent()

        def claim() -> bool:
            person.store.script_flush()
            return person.process.events.claim(person.queue) is not None

        assert sum(at_once(16, claim)) == 1
        assert person.process.events.drop(person.queue) == 1
        person.process.users.erase(person.user_id)


def test_a_race_delivers_each_event_once_and_in_its_order(person: Person) -> None:
    """Many couriers are at one user's events while more are written."""
    person.sent()
    got: list[int] = []

    def deliver() -> None:
        for _ in range(40):
            claim = person.process.events.claim(person.queue)
            if claim is not None:
                got.append(claim.event.created_ms)
                assert person.process.events.settle(person.queue, claim) in (Left.MORE, Left.EMPTY)

    def write() -> None:
        for _ in range(20):
            stored = person.registered(lease_ms=0)
            claim = person.process.outbox.claim(person.user_id, "me")
            person.settled(Stored(there(claim.registration), "me"))
            assert stored.registration.user_id == person.user_id

    race([*[deliver] * 6, write])
    got += [event.created_ms for event in person.told]
    assert len(got) == 21
    assert got == sorted(got)


def test_later_events_wait_for_the_one_that_is_being_delivered(person: Person) -> None:
    """And come as soon as it was taken."""
    stored = person.sent()
    claim = person.claimed()
    person.verified(stored)
    assert person.process.events.claim(person.queue) is None
    assert person.process.events.due(person.shards) == []
    assert person.process.events.settle(person.queue, claim) is Left.MORE
    assert person.process.events.due(person.shards) == [person.queue]
    assert person.delivered() == [VERIFIED]


def test_an_event_that_was_not_taken_waits_and_those_after_it_do(person: Person) -> None:
    """It is the same event for its receiver, however often it is tried."""
    verified(person)
    first = person.claimed()
    assert person.process.events.settle(person.queue, first, wait_ms=60_000) is Left.WAITS
    assert person.process.events.claim(person.queue) is None
    person.process.events.wake([person.process.name], person.shards)
    again = person.claimed()
    assert (again.event, again.attempts) == (first.event, 2)
    assert person.process.events.settle(person.queue, again, wait_ms=0) is Left.WAITS
    assert person.delivered() == [SENT, VERIFIED]


def test_a_claim_that_has_ended_is_somebody_elses(person: Person, store: redis.Redis) -> None:
    """The process has died, or its receiver was too slow. What it says afterwards changes nothing."""
    verified(person)
    old = person.claimed()
    wait_until(lambda: person.process.outbox.now_ms() > old.now_ms, 5)
    store.zadd(keys_of(person.user_id).schedule, {text_of(person.queue): old.now_ms - 1})
    assert person.process.events.due(person.shards) == [person.queue]
    new = person.claimed()
    assert new.attempts == 2
    before = everything(store)
    for wait_ms in (None, 1000):
        assert person.process.events.settle(person.queue, old, wait_ms) is Left.LOST
    assert everything(store) == before
    assert person.process.events.settle(person.queue, new) is Left.MORE


def test_a_claim_stands_as_long_as_nobody_else_has_the_event(person: Person) -> None:
    """A sweep that had found it due before may put it off meanwhile."""
    verified(person)
    claim = person.claimed()
    person.process.events.put_off([person.queue], LONGEST_EVENT_WAIT_MS)
    assert person.process.events.settle(person.queue, claim) is Left.MORE
    assert person.delivered() == [VERIFIED]


def test_what_is_settled_twice_takes_no_second_event(person: Person) -> None:
    """An answer of Redis was lost."""
    verified(person)
    claim = person.claimed()
    assert person.process.events.settle(person.queue, claim) is Left.MORE
    assert person.process.events.settle(person.queue, claim) is Left.LOST
    assert person.kinds == [VERIFIED]


def test_events_have_ids_of_their_own_that_say_nothing(person: Person, here: Process) -> None:
    """Two of the same kind, of one registration or of two, are two."""
    for _ in range(2):
        person.sent()
        wait_until(lambda: here.outbox.now_ms() > person.told[-1].at_ms, 5)
        person.settled(there(here.resent(ada())))
    found = []
    while claim := here.events.claim(person.queue):
        found.append(claim.event)
        here.events.settle(person.queue, claim)
    assert len({event.event_id for event in found}) == len(found) == 4
    for event in found:
        assert event.event_id.startswith("evt_")
        assert person.user_id[2:] not in event.event_id
    other = Process(here.url, ("k" * 32,), "another" * 5, listens=True)
    person.sent()
    ours, theirs = here.events.claim(person.queue), None
    person.store.zadd(keys_of(person.user_id).schedule, {text_of(person.queue): 1})
    theirs = other.events.claim(person.queue)
    assert there(ours).event.event_id != there(theirs).event.event_id
    other.close()


def test_what_a_later_release_wrote_is_left_to_it(person: Person, store: redis.Redis) -> None:
    """Its user's events wait; nobody else's do."""
    sent(person)
    key = keys_of(person.user_id).events
    for line in (b"renamed|1|2|default|0", b"sent|soon|2|default|0", b"\xff|1|2|default|0"):
        store.execute_command("LSET", key, 0, line)
        person.process.events.wake([person.process.name], person.shards)
        store.zadd(keys_of(person.user_id).schedule, {text_of(person.queue): 1})
        assert person.process.events.claim(person.queue) is None
        due_ms = there(store.zscore(keys_of(person.user_id).schedule, text_of(person.queue)))
        assert due_ms > person.process.outbox.now_ms() + CLAIM_MS
    store.lset(key, 0, "sent|1|2|default|0")


def test_all_events_of_a_user_are_dropped_and_told(person: Person) -> None:
    """Its receiver wants no more. What is being delivered just then is lost to its courier."""
    verified(person)
    claim = person.claimed()
    assert person.process.events.drop(person.queue) == 2
    assert person.process.events.drop(person.queue) == 0
    assert person.process.events.settle(person.queue, claim) is Left.LOST
    assert person.told == []
    sent(person)
    assert person.delivered() == [SENT]


@pytest.mark.parametrize("wait_ms", [CLAIM_MS // 2, LONGEST_EVENT_WAIT_MS])
def test_what_waits_for_one_service_is_woken_alone(here: Process, person: Person, wait_ms: int) -> None:
    """And what is in somebody's hands is left there."""
    shop = dataclasses.replace(here, name="shop")
    shopper = Person(shop, person.store, ada())
    for each in (person, shopper):
        each.sent()
        each.process.events.settle(each.queue, each.claimed(), wait_ms=wait_ms)
    here.events.wake(["sho", "shop"], person.shards)
    assert here.events.due(person.shards) == [shopper.queue]
    claim = shopper.claimed()
    here.events.wake(["shop"], person.shards)
    assert shop.events.claim(shopper.queue) is None
    assert shop.events.settle(shopper.queue, claim) is Left.EMPTY
    assert here.events.queues_of("default") == [person.queue]
    assert here.events.queues_of("shop") == []
    shop.close()


def test_a_spoiled_key_keeps_nobody_else_from_being_woken(person: Person, store: redis.Redis) -> None:
    """Nor from being counted, or left out."""
    sent(person)
    person.process.events.settle(person.queue, person.claimed(), wait_ms=LONGEST_EVENT_WAIT_MS)
    shards = [f"{{{shard:03}}}" for shard in range(1000) if shard not in person.shards]
    spoiled = [f"{shard}:{kind}" for shard in (shards[0], shards[-1]) for kind in ("schedule", "waiting")]
    for key in spoiled:
        store.set(key, "x")
    person.process.events.wake([person.process.name], range(1000))
    assert person.process.events.due(person.shards) == [person.queue]
    assert person.process.events.count().waiting == {"default": 1}
    person.process.events.leave_out(person.process.name)
    there(person.process.resent(ada()))
    person.reported()
    assert person.kinds == [SENT]
    store.delete(*spoiled)


def crowded(store: redis.Redis, shards: int, users: int) -> None:
    """So many users of another service in each of the first shards, all due for long."""
    for shard in range(shards):
        schedule = shard_keys(shard).schedule
        store.zadd(schedule, {f"club|{PAIRS[shard]}{turn:024}": turn for turn in range(users)})
        store.expire(schedule, 60)


def test_a_sweep_finds_so_many_of_a_shard(here: Process, store: redis.Redis) -> None:
    """The rest is found by the next one."""
    crowded(store, CROWD // USERS_A_SHARD, USERS_A_SHARD + 5)
    found = here.events.due(range(1000))
    assert len(found) == CROWD
    here.events.put_off(found, 60_000)
    assert len(here.events.due(range(1000))) == 5 * CROWD // USERS_A_SHARD
    store.flushall()


def test_a_crowd_of_one_service_in_a_shard_hides_nobody(
    person: Person, here: Process, store: redis.Redis
) -> None:
    """It may stand in the queue of a process already and wait there for a receiver that hangs, one after the
    other; a test service may have thousands of users in one shard."""
    person.sent()
    schedule = keys_of(person.user_id).schedule
    store.zadd(schedule, {f"club|{person.user_id[:2]}{turn:024}": turn for turn in range(1000)})
    assert person.queue in here.events.due(range(1000))
    store.zremrangebyscore(schedule, 0, 1000)


def test_putting_off_brings_nothing_back_and_nothing_forward(person: Person, here: Process) -> None:
    """What was delivered meanwhile stays so, and what is to wait for longer does."""
    sent(person)
    assert person.delivered() == [SENT]
    here.events.put_off([person.queue], 1000)
    assert kinds(person.store)["schedule"] == 0
    there(here.resent(ada()))
    person.reported()
    here.events.settle(person.queue, person.claimed(), wait_ms=LONGEST_EVENT_WAIT_MS)
    schedule = keys_of(person.user_id).schedule
    before = person.store.zrange(schedule, 0, -1, withscores=True)
    here.events.put_off([person.queue], 1000)
    assert person.store.zrange(schedule, 0, -1, withscores=True) == before
