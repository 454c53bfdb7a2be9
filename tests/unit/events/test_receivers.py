"""What all processes know of receivers."""

from collections.abc import Callable

import pytest

from app.services.webhooks.receivers import LOOK_AGAIN_S, Receivers
from tests.support.couriers import Clock, WaitingEvents


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


def test_a_receiver_that_fails_again_while_its_events_are_made_due_stays_failing() -> None:
    """A sweep takes its time. Forgotten, the receiver would be asked by many attempts side by side."""
    events, clock = WaitingEvents(), Clock()
    sweeping, other = Receivers(events, "1", clock), Receivers(events, "1", clock)
    sweeping.failed("shop")
    sweeping.succeeded("shop")
    recovered = sweeping.recovered
    clock.now += LOOK_AGAIN_S
    other.look()
    other.failed("shop")
    sweeping.woken(recovered)
    assert (sweeping.failing("shop"), events.states) == (True, {"shop": "failing"})
