"""What a receiver may answer, and what comes of it: for the event, the service and everybody else."""

import time
from itertools import pairwise

import pytest

from tests.api.events.conftest import (
    ANSWER_WITHIN_S,
    FIRST_RETRY_S,
    MACHINE_S,
    Comes,
    address,
    assert_in_order,
)
from tests.support.receivers import DRIPS, HANGS, Receiver, Reply
from tests.support.waiting import wait_until

OUTAGE_S = 25


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_what_is_taken_is_not_sent_again(comes: Comes, receiver: Receiver, other: str, status: int) -> None:
    """By any 2xx."""
    receiver.says(other, then=Reply(status))
    ada = comes(other)
    ada.registers()
    ada.verifies()
    ada.registers()
    receiver.wait_for(ada.id, "sent", "verified", "sent")
    assert len(receiver.attempts(user_id=ada.id)) == 3


@pytest.mark.parametrize("status", [500, 503, 429, 404, 400, 304, 302, 307, 0])
def test_what_is_not_taken_is_tried_again_within_5_s(
    comes: Comes, receiver: Receiver, other: str, status: int
) -> None:
    """The same event, signed anew at its new time. A redirect is not followed."""
    elsewhere = (("Location", receiver.url("elsewhere")),) if status in (302, 307) else ()
    receiver.says(other, Reply(status, elsewhere))
    ada = comes(other)
    ada.registers()
    receiver.wait_for(ada.id, "sent", timeout_s=FIRST_RETRY_S + MACHINE_S)
    first, second = receiver.attempts(other)
    assert second.at - first.at < FIRST_RETRY_S + MACHINE_S
    assert (second.event_id, second.body) == (first.event_id, first.body)
    at = [int(receipt.headers["webhook-timestamp"]) for receipt in (first, second)]
    # A kept connection that was closed is no attempt: then it is sent at once over a new one.
    assert at[1] > at[0] or (status == 0 and at[1] == at[0])
    assert receiver.attempts("elsewhere") == []


def test_an_event_that_is_not_taken_holds_up_its_own_address_alone(
    comes: Comes, receiver: Receiver, other: str
) -> None:
    """And is not overtaken by the next one of that address."""
    receiver.says(other, Reply(500))
    people = [comes(other) for _ in range(5)]
    for person in people:
        person.registers()
        person.verifies()
    for person in people:
        receiver.wait_for(person.id, "sent", "verified", timeout_s=FIRST_RETRY_S + MACHINE_S)
        assert_in_order(receiver.attempts(user_id=person.id))


@pytest.mark.slow
def test_the_waits_between_attempts_double(comes: Comes, receiver: Receiver, other: str) -> None:
    """From five seconds on, with jitter."""
    receiver.says(other, *[Reply(500)] * 4)
    ada = comes(other)
    ada.registers()
    receiver.wait_for(ada.id, "sent", timeout_s=100)
    waits = [then.at - before.at for before, then in pairwise(receiver.attempts(other))]
    assert [place for place, wait in enumerate(waits) if wait > FIRST_RETRY_S * 2**place + MACHINE_S] == []
    assert waits[3] > waits[1] > 1
    assert waits[2] > waits[0]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_after_an_outage_one_success_makes_all_that_waits_due(
    comes: Comes, receiver: Receiver, other: str
) -> None:
    """However long each would have waited by itself; and none overtakes another of its address."""
    receiver.says(other, then=Reply(503))
    people = [comes(other) for _ in range(40)]
    for person in people:
        person.registers()
        person.verifies()
    began = receiver.attempts(other)[0].at
    wait_until(lambda: time.time() - began > OUTAGE_S, 2 * OUTAGE_S, "the waits are long by now")
    receiver.says(other)
    wait_until(lambda: receiver.taken(other), 2 * OUTAGE_S, "one is taken")
    for person in people:
        receiver.wait_for(person.id, "sent", "verified")
        assert_in_order(receiver.attempts(user_id=person.id))
    taken = receiver.taken(other)
    assert taken[-1].at - taken[0].at < FIRST_RETRY_S


def test_receivers_that_hang_delay_nobody_else(
    comes: Comes, receiver: Receiver, other: str, another: str
) -> None:
    """Neither the registrations of their services, nor the events of others."""
    receiver.says(other, then=HANGS)
    receiver.says(another, then=DRIPS)
    for service in [other, another] * 25:
        answer = comes(service).api.register(address())
        assert answer.status_code == 201
        assert answer.elapsed.total_seconds() < MACHINE_S
    wait_until(lambda: receiver.attempts(other) and receiver.attempts(another), 5, "both are being told")
    ada = comes("shop")
    ada.registers()
    ada.verifies()
    receiver.wait_for(ada.id, "sent", "verified", timeout_s=MACHINE_S)


@pytest.mark.slow
@pytest.mark.parametrize("reply", [HANGS, DRIPS], ids=["hangs", "drips"])
def test_an_answer_is_awaited_for_10_s_in_all(
    comes: Comes, receiver: Receiver, other: str, reply: Reply
) -> None:
    """Whatever comes of it meanwhile. Then it is tried again."""
    receiver.says(other, reply)
    ada = comes(other)
    ada.registers()
    wait_until(lambda: len(receiver.attempts(other)) == 2, ANSWER_WITHIN_S + FIRST_RETRY_S + MACHINE_S)
    first, second = receiver.attempts(other)
    assert ANSWER_WITHIN_S < second.at - first.at < ANSWER_WITHIN_S + FIRST_RETRY_S + MACHINE_S
