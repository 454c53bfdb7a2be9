"""The courier: takes the events of one user to their receiver."""

from collections.abc import Callable

import pytest

from app.domain.registration import Event
from app.domain.service import Service
from app.repositories.events import Queue
from app.repositories.scripts import LONGEST_EVENT_WAIT_MS
from app.services.webhooks.courier import (
    ASKED_IN_VAIN_S,
    FIRST_WAIT_MS,
    GIVE_UP_MS,
    IN_A_ROW,
    NOT_ASKED,
    Courier,
)
from app.services.webhooks.receivers import LOOK_AGAIN_S, Receivers
from app.telemetry.traces import Traces
from app.webhook.answers import Gone, NotTaken
from tests.support.couriers import SHOP, SILENT, Clock, Counted, Posts, WaitingEvents, queue


class Notes(Traces):
    """Keeps why events were not taken."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def note(self, name: str, value: str) -> None:
        if name == "cedula.event_error":
            self.errors.append(value)


class Delivery:
    """A courier, with whatever it works on. `service`: in force; None = unknown."""

    def __init__(self, answer: Callable[[Event], None] = lambda _: None) -> None:
        self.events, self.posts, self.metrics = WaitingEvents(), Posts(answer), Counted()
        self.traces = Notes()
        self.service: Service | None = SHOP
        self.clock = Clock()
        self.receivers = Receivers(self.events, "1", self.clock)
        self.jitter = 1.0
        self.courier = Courier(
            self.events,
            self.posts,
            self.receivers,
            lambda _: self.service,
            self.metrics,
            self.traces,
            jitter=lambda: self.jitter,
            clock=self.clock,
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
    assert set(waits[9:]) == {LONGEST_EVENT_WAIT_MS}
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


def test_a_receiver_that_failed_a_moment_ago_is_not_asked_for_what_is_too_old() -> None:
    """A long row of them at one that hangs would else last for days. A minute later it is asked again."""
    asked = 0

    def answer(event: Event) -> None:
        nonlocal asked
        asked += 1
        refuse(event)

    at = Delivery(answer)
    at.events.age_ms = GIVE_UP_MS
    for number in range(3):
        at.events.add(queue(number))
        at.deliver(queue(number))
    assert asked == 1
    assert at.outcomes == {"given_up": 3}
    assert at.traces.errors == ["status 500", NOT_ASKED, NOT_ASKED]
    at.posts.answer = lambda _: None
    at.clock.now += ASKED_IN_VAIN_S
    at.events.add(queue())
    at.deliver()
    assert at.outcomes == {"given_up": 3, "taken": 1}


@pytest.mark.parametrize("here", [True, False])
def test_a_receiver_that_has_recovered_is_asked_for_what_is_too_old(here: bool) -> None:
    """Its first success, in this process or another one, makes all that waits due, often less than a minute
    after the last failure."""
    at = Delivery(refuse)
    at.events.add(queue())
    at.deliver()
    at.posts.answer = lambda _: None
    if here:
        at.deliver()
    else:
        elsewhere = Receivers(at.events, "1")
        elsewhere.look()
        elsewhere.succeeded("shop")
        at.clock.now += LOOK_AGAIN_S
    at.events.age_ms = GIVE_UP_MS
    at.events.add(queue(1))
    at.deliver(queue(1))
    assert at.posts.posted[-1] == f"{queue(1).user_id}-0"
    assert "given_up" not in at.outcomes


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
    assert at.traces.errors == ["status 410"]
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
