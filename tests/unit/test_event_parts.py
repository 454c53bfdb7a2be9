"""The parts that deliver events, by themselves: queue, receivers, courier, relay, threads of a process."""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest

from app.domain.event import Event
from app.domain.service import Service
from app.errors import StorageUnavailable
from app.repositories.events import LONGEST_WAIT_MS, Claim, Queue, Waiting
from app.services.events import STOP_WITHIN_S, EventService
from app.services.webhooks.courier import FIRST_WAIT_MS, GIVE_UP_MS, IN_A_ROW, Courier
from app.services.webhooks.queue import (
    AT_ONCE,
    AT_ONCE_FAILING,
    MAX_COURIERS,
    MAX_QUEUED,
    MAX_QUEUED_FAILING,
    EventQueue,
)
from app.services.webhooks.receivers import LOOK_AGAIN_S, Receivers
from app.services.webhooks.relay import CROWDED_MS, MAX_WAITING, EventRelay
from app.webhook.answers import Gone, NotTaken
from tests.support.couriers import SHOP, SILENT, Counted, Passed, Posts, WaitingEvents, queue
from tests.support.servers import ROOT
from tests.support.waiting import wait_until

PROGRAM = "tests.support.faults.deliver_under_gevent"


def never(_: str) -> bool:
    return False


def taken(at: EventQueue, count: int) -> list[Queue]:
    """The next ones, whose attempts all go on."""
    return [found for _ in range(count) if (found := at.take(0)) is not None]


# The queue


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


# Receivers


class Clock:
    """A clock that stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_one_process_knows_of_receivers_all_know_within_a_second() -> None:
    """Each asks Redis once in that time."""
    events, clock = WaitingEvents(), Clock()
    one, other = Receivers(events, "1", clock), Receivers(events, "1", clock)
    for each in (one, other):
        each.look()
    one.failed("shop")
    one.left("bank")
    other.look()
    assert (other.failing("shop"), other.gone("bank")) == (False, False)
    clock.now += LOOK_AGAIN_S
    for _ in range(3):
        other.look()
    assert (other.failing("shop"), other.gone("bank")) == (True, True)
    assert other.unwell == {"shop": "failing", "bank": "gone"}
    assert events.looks == 3


def test_a_failure_is_written_down_once_and_so_is_its_end() -> None:
    """What waits is then due: whoever sweeps makes it so, as long as no attempt fails again."""
    events, clock = WaitingEvents(), Clock()
    one, other = Receivers(events, "1", clock), Receivers(events, "1", clock)
    one.succeeded("shop")
    assert events.states == {}
    for each in (one, one, other):
        each.failed("shop")
    assert events.states == {"shop": "failing"}
    for each in (other, one, one):
        each.succeeded("shop")
    assert events.states == {"shop": "recovered"}
    clock.now += LOOK_AGAIN_S
    other.look()
    assert (other.failing("shop"), other.unwell, other.recovered) == (False, {}, {"shop"})
    other.woken({"shop"})
    assert (other.recovered, events.states) == (set(), {})
    one.failed("shop")
    other.look()
    assert events.states == {"shop": "failing"}


@pytest.mark.parametrize("ends", [Receivers.failed, Receivers.succeeded])
def test_an_attempt_that_was_under_way_does_not_bring_back_a_receiver_that_is_gone(
    ends: Callable[[Receivers, str], None],
) -> None:
    """All processes learn that it answered 410, whatever it answered to others at that time."""
    events, clock = WaitingEvents(), Clock()
    one, other, third = (Receivers(events, "1", clock) for _ in range(3))
    for each in (one, other, third):
        each.look()
    if ends is Receivers.succeeded:
        other.failed("shop")
    one.left("shop")
    ends(other, "shop")
    clock.now += LOOK_AGAIN_S
    third.look()
    assert third.gone("shop")
    assert third.unwell == {"shop": "gone"}


def test_a_receiver_that_wants_no_more_events_is_asked_again_after_a_new_start() -> None:
    """By no process of the same start, whatever others say meanwhile."""
    events, clock = WaitingEvents(), Clock()
    one = Receivers(events, "first start", clock)
    one.left("shop")
    late, newer = Receivers(events, "first start", clock), Receivers(events, "second start", clock)
    for each in (late, newer):
        each.look()
    assert (late.gone("shop"), newer.gone("shop"), newer.failing("shop")) == (True, False, False)
    newer.left("bank")
    newer.succeeded("shop")
    clock.now += LOOK_AGAIN_S
    late.look()
    assert (late.gone("shop"), late.gone("bank")) == (True, False)


# The courier


class Delivery:
    """A courier, with whatever it works on. `service`: in force; None = unknown."""

    def __init__(self, answer: Callable[[Event], None] = lambda _: None) -> None:
        self.events, self.posts, self.metrics = WaitingEvents(), Posts(answer), Counted()
        self.service: Service | None = SHOP
        self.receivers = Receivers(self.events, "1")
        self.jitter = 1.0
        self.courier = Courier(
            self.events,
            self.posts,
            self.receivers,
            lambda _: self.service,
            self.metrics,
            jitter=lambda: self.jitter,
        )

    def deliver(self, at: Queue | None = None) -> bool:
        return self.courier.deliver(at or queue())

    @property
    def outcomes(self) -> dict[str, int]:
        return {outcome: count for (_, outcome), count in self.metrics.outcomes.items() if count}


def refuse(_: Event) -> None:
    raise NotTaken("status 500")


def leave(_: Event) -> None:
    raise Gone


def break_down(_: Event) -> None:
    raise KeyError


def test_a_courier_delivers_what_is_due_of_one_user_in_its_order() -> None:
    """And leaves the rest to the next turn, so that others have theirs."""
    at = Delivery()
    at.events.add(queue(), IN_A_ROW + 2)
    names = [event.event_id for event in at.events.lists[queue()]]
    assert at.deliver()
    assert at.posts.posted == names[:IN_A_ROW]
    assert not at.deliver()
    assert at.posts.posted == names
    assert at.outcomes == {"taken": IN_A_ROW + 2}
    assert not at.deliver()


def test_what_is_not_taken_is_put_off_and_what_is_behind_it_waits() -> None:
    """Other users' events do not."""
    at = Delivery(refuse)
    at.events.add(queue(), 2)
    assert not at.deliver()
    assert at.events.attempts == {f"{queue().user_id}-0": 1}
    assert at.receivers.failing("shop")
    assert at.outcomes == {"put_off": 1}
    at.posts.answer = lambda _: None
    at.events.add(queue(1))
    at.deliver(queue(1))
    assert not at.receivers.failing("shop")
    assert at.receivers.recovered == {"shop"}


def test_waits_double_up_to_15_minutes_with_jitter() -> None:
    """The first repetition comes within 5 s, a sweep included."""
    at = Delivery(refuse)
    at.events.add(queue())
    for at.jitter in (1.0, 0.0, 1.0, 0.0, *[1.0] * 30):
        at.deliver()
    waits = at.events.waits_ms
    assert waits[:4] == [FIRST_WAIT_MS, FIRST_WAIT_MS, 4 * FIRST_WAIT_MS, 4 * FIRST_WAIT_MS]
    assert set(waits[9:]) == {LONGEST_WAIT_MS}
    assert waits[4:] == sorted(waits[4:])


def test_an_event_is_given_up_after_24_hours() -> None:
    """And the next one has its turn, which may be younger."""
    at = Delivery(refuse)
    at.events.add(queue(), 2)
    at.events.age_ms = GIVE_UP_MS - 1
    at.deliver()
    assert at.outcomes == {"put_off": 1}
    at.events.age_ms = GIVE_UP_MS
    at.deliver()
    assert at.events.lists[queue()] == []
    assert at.outcomes == {"put_off": 1, "given_up": 2}


def test_an_event_that_is_old_is_still_taken() -> None:
    """Nobody was there to deliver it before."""
    at = Delivery()
    at.events.add(queue())
    at.events.age_ms = 3 * GIVE_UP_MS
    at.deliver()
    assert at.outcomes == {"taken": 1}


def test_a_receiver_that_is_gone_is_sent_nothing_more_and_all_that_waits_is_dropped() -> None:
    """Of its service, not of others."""
    at = Delivery(leave)
    for number in range(3):
        at.events.add(queue(number), 2)
    at.events.add(queue(0, "bank"))
    assert not at.deliver()
    assert [each.service for each, events in at.events.lists.items() if events] == ["bank"]
    assert at.outcomes == {"dropped": 6}
    at.posts.answer = lambda _: None
    at.events.add(queue(9))
    assert not at.deliver(queue(9))
    assert at.posts.posted == []
    assert at.outcomes == {"dropped": 7}


def test_a_receiver_that_another_process_knows_to_be_gone_is_sent_no_event_more() -> None:
    """Not even the rest of one user's."""
    at = Delivery()
    clock = Clock()
    at.receivers = Receivers(at.events, "1", clock)
    at.courier = Courier(at.events, at.posts, at.receivers, lambda _: SHOP, at.metrics)
    at.events.add(queue(), 3)

    def hear(_: Event) -> None:
        at.events.states["shop:gone"] = "1"
        clock.now += LOOK_AGAIN_S

    at.posts.answer = hear
    at.deliver()
    assert len(at.posts.posted) == 1
    assert at.outcomes == {"taken": 1, "dropped": 2}


def test_events_of_an_unknown_service_wait_for_its_return() -> None:
    """It was taken out of the file, and may be put back."""
    at = Delivery()
    at.service = None
    at.events.add(queue())
    assert not at.deliver()
    assert at.outcomes == {"put_off": 1}
    at.service = SHOP
    at.deliver()
    assert at.outcomes == {"put_off": 1, "taken": 1}


def test_events_of_a_service_that_wants_none_any_more_are_dropped() -> None:
    """Its URL was taken out of the file."""
    at = Delivery()
    at.service = SILENT
    at.events.add(queue(), 2)
    assert not at.deliver()
    assert at.outcomes == {"dropped": 2}


def test_an_accident_is_an_attempt_like_any_other() -> None:
    """It has a wait and an end, and no other user's event waits for it."""
    at = Delivery(break_down)
    at.events.add(queue())
    for _ in range(2):
        assert not at.deliver()
    assert at.events.waits_ms == [FIRST_WAIT_MS, 2 * FIRST_WAIT_MS]
    at.events.age_ms = GIVE_UP_MS
    at.deliver()
    assert at.outcomes == {"put_off": 2, "given_up": 1}


@pytest.mark.parametrize("answer", [refuse, lambda _: None, leave])
def test_what_was_dropped_during_an_attempt_stays_so(answer: Callable[[Event], None]) -> None:
    """Another process has heard that the receiver is gone."""
    at = Delivery()
    at.events.add(queue(), 2)

    def drop(event: Event) -> None:
        at.events.drop(queue())
        answer(event)

    at.posts.answer = drop
    assert not at.deliver()
    assert queue() not in at.events.lists or at.events.lists[queue()] == []


# The relay


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
        return self.ended if 0 in shards else []

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
    expected = {shop[-1]: CROWDED_MS} | dict.fromkeys(bank[-2:], LONGEST_WAIT_MS)
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


# The threads of a process


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
