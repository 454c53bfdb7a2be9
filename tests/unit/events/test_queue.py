"""The queue of events in a process: whose turn it is."""

import threading

import pytest

from app.repositories.events import Queue
from app.services.webhooks.queue import (
    AT_ONCE,
    AT_ONCE_FAILING,
    MAX_COURIERS,
    MAX_QUEUED,
    MAX_QUEUED_FAILING,
    EventQueue,
)
from tests.support.couriers import queue


def never(_: str) -> bool:
    return False


def taken(at: EventQueue, count: int) -> list[Queue]:
    """The next ones, whose attempts all go on."""
    return [found for _ in range(count) if (found := at.take(0)) is not None]


def test_services_take_turns() -> None:
    """However many users of one are due."""
    at = EventQueue(never)
    for number in range(5):
        at.put(queue(number))
    at.put(queue(0, "bank"))
    at.put(queue(0, "club"))
    assert [found.service for found in taken(at, 5)] == ["shop", "bank", "club", "shop", "shop"]


def test_a_user_is_queued_once_and_again_while_being_served() -> None:
    """What is written during an attempt must not be missed."""
    at = EventQueue(never)
    assert at.put(queue())
    assert at.put(queue())
    assert taken(at, 2) == [queue()]
    assert at.put(queue())
    assert taken(at, 2) == [queue()]


def test_so_many_attempts_go_on_at_one_receiver() -> None:
    """The next begins when one has ended; another service's are counted apart."""
    at = EventQueue(never)
    for number in range(AT_ONCE + 2):
        at.put(queue(number))
    assert len(taken(at, AT_ONCE + 2)) == AT_ONCE
    at.put(queue(0, "bank"))
    assert taken(at, 2) == [queue(0, "bank")]
    at.done(queue(0))
    assert taken(at, 2) == [queue(AT_ONCE)]


def test_one_attempt_at_a_time_goes_on_at_a_receiver_that_fails() -> None:
    """Until it takes something."""
    failing = {"shop"}
    at = EventQueue(failing.__contains__)
    for number in range(4):
        at.put(queue(number))
    assert taken(at, 2) == [queue(0)]
    at.done(queue(0))
    assert taken(at, 2) == [queue(1)]
    failing.clear()
    assert taken(at, 3) == [queue(2), queue(3)]


@pytest.mark.parametrize(("services", "fail"), [(4, False), (20, False), (100, True)])
def test_receivers_that_take_their_time_leave_couriers_for_the_next_service(
    services: int, fail: bool
) -> None:
    """A few that are slow, and many that fail, of which a part is tried at a time."""
    at = EventQueue(lambda service: fail and service != "bank")
    for service in range(services):
        for number in range(AT_ONCE):
            at.put(queue(number, f"slow-{service}"))
    running = taken(at, MAX_COURIERS)
    assert len({found.service for found in running}) == min(services, AT_ONCE_FAILING)
    for number in range(AT_ONCE):
        at.put(queue(number, "bank"))
    assert {found.service for found in taken(at, MAX_COURIERS - len(running))} == {"bank"}
    assert len(running) >= MAX_COURIERS // 2


@pytest.mark.parametrize(("fails", "most"), [(False, MAX_QUEUED), (True, MAX_QUEUED_FAILING)])
def test_so_many_users_of_one_service_are_kept_in_mind(fails: bool, most: int) -> None:
    """Redis knows of the others."""
    at = EventQueue(lambda service: fails and service == "shop")
    assert all(at.put(queue(number)) for number in range(most))
    assert not at.put(queue(most))
    assert at.put(queue(0))
    assert at.put(queue(0, "bank"))
    assert taken(at, 1) == [queue(0)]
    assert at.put(queue(most))


def test_whoever_waits_is_woken_by_what_comes() -> None:
    """Also where it comes after an attempt that blocked it."""
    at = EventQueue(lambda _: True)
    at.put(queue(0))
    assert taken(at, 1) == [queue(0)]
    found: list[Queue | None] = []
    waiting = threading.Thread(target=lambda: found.append(at.take(30)))
    waiting.start()
    at.put(queue(1))
    assert not found
    at.done(queue(0))
    waiting.join(10)
    assert found == [queue(1)]


def test_a_queue_that_is_closed_wakes_everybody_and_gives_and_takes_nothing() -> None:
    """What is in it stays in Redis."""
    at = EventQueue(never)
    found: list[Queue | None] = []
    waiting = [threading.Thread(target=lambda: found.append(at.take(30))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    at.close()
    for thread in waiting:
        thread.join(10)
    assert found == [None] * 3
    assert not at.put(queue())
    assert at.take(30) is None
    assert not at.needs_more


def test_more_are_needed_where_somebody_has_a_turn_and_nobody_rests() -> None:
    """A thread is started for each, but none for what has to wait for its turn."""
    at = EventQueue(lambda _: True)
    assert not at.needs_more
    at.put(queue(0))
    assert at.needs_more
    assert at.take(0) == queue(0)
    at.put(queue(1))
    assert not at.needs_more
    at.put(queue(0, "bank"))
    assert at.needs_more
