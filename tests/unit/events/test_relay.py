"""The relay of events: what is due in Redis, and how much waits."""

from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from app.errors import StorageUnavailable
from app.repositories.events import USERS_A_SHARD, Queue, Waiting
from app.repositories.scripts import LONGEST_EVENT_WAIT_MS
from app.services.webhooks.queue import (
    MAX_QUEUED,
    MAX_QUEUED_FAILING,
    EventQueue,
)
from app.services.webhooks.receivers import Receivers
from app.services.webhooks.relay import CROWDED_MS, MAX_WAITING, EventRelay
from tests.support.couriers import Counted, Passed, WaitingEvents, queue
from tests.support.waiting import wait_until


class Sweep(WaitingEvents):
    """What sweeps find and do. `is_ours`: this process sweeps. `counts`: what waits and was left out."""

    def __init__(self) -> None:
        super().__init__()
        self.is_ours = True
        self.dues: list[Queue] = []
        self.ended: list[str] = []
        self.told: list[str] = []
        self.counts = Waiting(Counter(), Counter())
        self.sweeps = 0
        self.left_out: list[str] = []
        self.let_go = False

    def hold_relay(self, owner: str, ttl_ms: int) -> bool:
        self.let_go = ttl_ms == 0
        return self.is_ours

    def due(self, shards: Iterable[int]) -> list[Queue]:
        return self.dues if 0 in shards else []

    def due_never(self, shards: Iterable[int]) -> list[Queue]:
        return []

    def expired(self, shards: Iterable[int]) -> list[str]:
        left = [user_id for user_id in self.ended if user_id not in self.told]
        return left[:USERS_A_SHARD] if 0 in shards else []

    def note_expiry(self, user_id: str) -> bool:
        if user_id == SPOILED:
            raise StorageUnavailable(code="WRONGTYPE")
        self.told.append(user_id)
        return True

    def put_off_end(self, user_id: str) -> None:
        self.told.append(f"{user_id} later")

    def keep_receivers(self) -> None:
        pass

    def count(self) -> Waiting:
        return self.counts

    def publish(self, waiting: Counter[str]) -> None:
        self.sweeps += 1

    def leave_out(self, service: str) -> None:
        self.left_out.append(service)


SPOILED = "spoiled"


class Relaying:
    """A relay, and what it works on. `listening`: whether any service wants events."""

    def __init__(self) -> None:
        self.events, self.metrics = Sweep(), Counted()
        self.receivers = Receivers(self.events, "1")
        self.queue = EventQueue(self.receivers.failing)
        self.listening = True
        self.looks = 0
        self.relay = EventRelay(
            self.events,
            Passed(),
            self.queue,
            self.receivers,
            self.listens,
            tend=lambda: None,
            close_idle=lambda: None,
            metrics=self.metrics,
        )

    def listens(self) -> bool:
        self.looks += 1
        return self.listening


@pytest.fixture
def relaying() -> Iterator[Relaying]:
    found = Relaying()
    yield found
    found.relay.stop()


def test_what_is_due_in_redis_is_queued(relaying: Relaying) -> None:
    """Of all services, by one process at a time, which lets others do it when it ends."""
    relaying.events.dues = [queue(0), queue(1), queue(0, "bank")]
    relaying.relay.start()
    assert {relaying.queue.take(10) for _ in range(3)} == set(relaying.events.dues)
    relaying.relay.stop()
    assert relaying.events.let_go


def test_a_process_that_does_not_sweep_queues_nothing(relaying: Relaying) -> None:
    """But learns which receivers fail."""
    relaying.events.is_ours = False
    relaying.events.dues = [queue()]
    relaying.relay.start()
    wait_until(lambda: relaying.events.looks, 10)
    relaying.relay.stop()
    assert relaying.queue.take(0) is None
    assert relaying.events.sweeps == 0


def test_redis_is_asked_nothing_while_no_service_wants_events(relaying: Relaying) -> None:
    """From a reload on it may be otherwise."""
    relaying.listening = False
    relaying.relay.start()
    wait_until(lambda: relaying.looks, 10)
    assert (relaying.events.looks, relaying.events.sweeps) == (0, 0)
    relaying.listening = True
    wait_until(lambda: relaying.events.sweeps, 10)


def test_what_has_no_place_in_the_queue_is_put_off(relaying: Relaying) -> None:
    """For long where its receiver fails: its first success makes all of it due."""
    relaying.events.states["bank"] = "failing"
    shop = [queue(number) for number in range(MAX_QUEUED + 1)]
    bank = [queue(number, "bank") for number in range(MAX_QUEUED_FAILING + 2)]
    relaying.events.dues = [*shop, *bank]
    relaying.relay.start()
    wait_until(lambda: len(relaying.events.off) == 3, 10)
    expected = {shop[-1]: CROWDED_MS} | dict.fromkeys(bank[-2:], LONGEST_EVENT_WAIT_MS)
    assert relaying.events.off == expected


def test_what_waits_for_receivers_that_take_events_again_is_due_at_once(relaying: Relaying) -> None:
    """For all of them by one sweep. It is forgotten only afterwards: who sweeps may die meanwhile."""
    relaying.events.states = {"shop": "recovered", "bank": "recovered", "club": "failing"}
    relaying.relay.start()
    wait_until(lambda: relaying.events.woken, 10)
    wait_until(lambda: relaying.events.states == {"club": "failing"}, 10)
    assert relaying.events.woken == {"shop", "bank"}


def test_an_end_whose_keys_are_spoiled_keeps_no_other_from_being_told(relaying: Relaying) -> None:
    """It is looked at again later."""
    relaying.events.ended = ["ada", SPOILED, "eve"]
    relaying.relay.start()
    wait_until(lambda: len(relaying.events.told) == 3, 10)
    assert relaying.events.told == ["ada", "spoiled later", "eve"]


def test_one_sweep_tells_of_all_ends_of_a_crowded_shard(relaying: Relaying) -> None:
    """All addresses of one mailbox are in one shard, and a test service may register thousands of them. The
    next look is 20 s later, and an end is to be told within a minute."""
    relaying.events.ended = [f"ada+{number}" for number in range(1000)]
    relaying.relay.start()
    wait_until(lambda: relaying.events.sweeps, 10)
    relaying.relay.stop()
    assert relaying.events.told == relaying.events.ended


def test_a_service_with_too_many_events_gets_no_further_ones_for_now(relaying: Relaying) -> None:
    """Each sweep looks anew, and tells how many were left out."""
    waiting = Counter(shop=MAX_WAITING, bank=MAX_WAITING - 1)
    relaying.events.counts = Waiting(waiting, Counter(shop=7))
    relaying.relay.start()
    wait_until(lambda: relaying.events.left_out, 10)
    relaying.events.counts = Waiting(Counter(shop=MAX_WAITING - 1), Counter())
    sweeps = relaying.events.sweeps
    wait_until(lambda: relaying.events.sweeps > sweeps, 10)
    relaying.relay.stop()
    assert relaying.events.left_out == ["shop"]
    assert relaying.metrics.outcomes == {("shop", "dropped"): 7}
