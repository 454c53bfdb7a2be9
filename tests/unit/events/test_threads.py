"""The threads that deliver events in one process."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from app.domain.registration import Event
from app.domain.service import Service
from app.errors import StorageUnavailable
from app.repositories.events import Claim, Queue
from app.services.events import STOP_WITHIN_S, EventService
from app.services.webhooks.queue import (
    AT_ONCE,
    MAX_COURIERS,
)
from tests.support.couriers import SHOP, SILENT, Counted, Passed, Posts, WaitingEvents, queue
from tests.support.servers import ROOT
from tests.support.waiting import wait_until

PROGRAM = "tests.support.faults.deliver_under_gevent"


class Held:
    """Receivers that answer when they may."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def answer(self, _: Event) -> None:
        assert self.free.wait(30)


@contextmanager
def delivering(
    events: WaitingEvents, posts: Posts, service: Callable[[str], Service | None] = lambda _: SHOP
) -> Iterator[EventService]:
    """The threads of one process. It does not sweep."""
    found = EventService(
        events, Passed(), posts, start="1", service=service, listening=lambda: True, metrics=Counted()
    )
    found.start()
    yield found
    found.stop()


def written(events: WaitingEvents, at: EventService, number: int, service: str = "shop") -> None:
    """An event was written in this process."""
    events.add(queue(number, service))
    at.noticed(*queue(number, service))


def test_a_crowd_of_events_goes_out_side_by_side() -> None:
    """Without a look of the relay: whoever takes one starts the next courier, up to so many."""
    events, held = WaitingEvents(), Held()
    posts = Posts(held.answer)
    with delivering(events, posts) as at:
        written(events, at, 0)
        held.free.set()
        wait_until(lambda: posts.posted, 10)  # its courier rests
        held.free.clear()
        for number in range(1, 2 * AT_ONCE):
            written(events, at, number)
        wait_until(lambda: posts.running == AT_ONCE, 5)
        held.free.set()
        wait_until(lambda: len(posts.posted) == 2 * AT_ONCE, 10)
    assert posts.most_running == AT_ONCE


def test_a_process_has_so_many_couriers() -> None:
    """However many services have events at once."""
    events, held = WaitingEvents(), Held()
    posts = Posts(held.answer)
    with delivering(events, posts) as at:
        for number in range(2 * MAX_COURIERS):
            written(events, at, 0, f"service-{number}")
        wait_until(lambda: posts.running == MAX_COURIERS, 10)
        held.free.set()
        wait_until(lambda: len(posts.posted) == 2 * MAX_COURIERS, 10)
    assert len(at.threads) == 1 + MAX_COURIERS


def test_a_command_starts_no_courier() -> None:
    """It would end in the middle of the attempt, which nobody would repeat before the claim ends."""
    events = WaitingEvents()
    at = EventService(
        events,
        Passed(),
        Posts(),
        start="1",
        service=lambda _: SHOP,
        listening=lambda: True,
        metrics=Counted(),
    )
    written(events, at, 0)
    assert len(at.threads) == 1
    assert events.attempts == {}


def test_a_service_that_wants_no_events_needs_no_courier() -> None:
    """Nor does one that is unknown."""
    in_force = {"shop": SILENT}
    with delivering(WaitingEvents(), Posts(), in_force.get) as at:
        for service in ("shop", "bank"):
            at.noticed(*queue(0, service))
        assert len(at.threads) == 1


def test_a_receiver_that_hangs_keeps_no_other_service_waiting() -> None:
    """Its couriers are its own."""
    events, held = WaitingEvents(), Held()

    def hang(event: Event) -> None:
        if event.user_id.startswith("0"):
            held.answer(event)

    posts = Posts(hang)
    with delivering(events, posts) as at:
        for number in range(2 * AT_ONCE):
            written(events, at, number)
        wait_until(lambda: posts.running == AT_ONCE, 10)
        events.add(Queue("bank", "u" * 26))
        at.noticed("bank", "u" * 26)
        wait_until(lambda: posts.posted, 5)
        held.free.set()


class Spoiled(WaitingEvents):
    """Redis refuses: by `code`."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.code = code

    def claim(self, at: Queue) -> Claim | None:
        if self.attempts[at.user_id] == 0:
            self.attempts[at.user_id] += 1
            raise StorageUnavailable(code=self.code)
        return super().claim(at)


@pytest.mark.parametrize(("code", "later"), [("WRONGTYPE", True), ("READONLY", False)])
def test_a_courier_lives_on_whatever_redis_says(code: str, later: bool) -> None:
    """Where the keys of one user are spoiled, that one waits for long."""
    events, posts = Spoiled(code), Posts()
    with delivering(events, posts) as at:
        written(events, at, 0)
        wait_until(lambda: events.attempts[queue().user_id], 10)
        events.attempts[queue(1).user_id] = 1
        written(events, at, 1)
        wait_until(lambda: posts.posted, 10)
        wait_until(lambda: bool(events.off) == later, 10)
        assert sum(thread.deaths for thread in at.threads) == 0
    assert set(events.off) == ({queue()} if later else set())


def test_a_process_ends_at_once_and_leaves_what_waits_to_redis() -> None:
    """An attempt that goes on is waited for, for a moment."""
    events, held = WaitingEvents(), Held()
    posts = Posts(held.answer)
    with delivering(events, posts) as at:
        for number in range(2 * AT_ONCE):
            written(events, at, number)
        wait_until(lambda: posts.running == AT_ONCE, 10)
        began = time.monotonic()
        at.stop()
        assert time.monotonic() - began < STOP_WITHIN_S + 1
        at.noticed(*queue())
        held.free.set()
        wait_until(lambda: not any(thread.alive for thread in at.threads), 10)
    assert len(posts.posted) == AT_ONCE
    assert sum(map(len, events.lists.values())) == AT_ONCE


def test_it_does_so_under_gevent_too() -> None:
    """Couriers that find the queue closed let others run; a start that waited for them would never end."""
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    couriers, seconds = done.stdout.split()
    assert int(couriers) > 1
    assert float(seconds) < STOP_WITHIN_S
