"""What is written when something happens to a registration."""

from collections.abc import Callable

import pytest

from app.errors import VerificationFailed
from app.repositories.scripts import WRONG_IN_A_ROW
from tests.api.conftest import wrong
from tests.support.changes import (
    CHANGES,
    EXPIRED,
    SENT,
    VERIFIED,
    erase,
    expired,
    refuse,
    replace,
)
from tests.support.people import ada
from tests.support.scan import kinds
from tests.support.telling import KINDS_OF_KEY, Person
from tests.support.values import there

changes = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)


@changes
def test_each_change_writes_its_events(person: Person, change: Callable[[Person], None]) -> None:
    """In the order in which they happened, with the time of each and that of the registration."""
    change(person)
    assert person.kinds == CHANGES[change]
    now_ms = person.process.outbox.now_ms()
    assert {now_ms - event.at_ms < 10_000 for event in person.told} == {True}
    assert len({event.created_ms for event in person.told}) == 1
    assert person.delivered() == CHANGES[change]
    assert kinds(person.store).keys().isdisjoint({"events", "schedule", "waiting"})


@changes
def test_a_service_that_wants_no_events_leaves_nothing_for_them(
    person: Person, change: Callable[[Person], None]
) -> None:
    """Neither an event nor an end outlives what happened."""
    person.process.listens = False
    if change is not expired:
        change(person)
    else:
        person.sent()
    assert kinds(person.store).keys().isdisjoint(KINDS_OF_KEY)


@changes
def test_nothing_personal_is_in_an_event(person: Person, change: Callable[[Person], None]) -> None:
    """Neither in the name nor in the value of any key that there is for the sake of events."""
    change(person)
    number = person.registered().registration.number
    found = [key for kind in KINDS_OF_KEY for key in person.store.scan_iter(f"*:{kind}*")]
    assert found
    held = b" ".join([*found, *(person.store.dump(key) or b"" for key in found)])
    for personal in ("ada", "example", "t0ken", number):
        assert personal.encode() not in held


def test_the_times_are_those_of_the_change_and_of_its_registration(person: Person) -> None:
    """By the clock of Redis, as everything in the API."""
    stored = person.sent()
    record = there(person.process.users.find(person.user_id))
    (told,) = person.told
    assert (told.at_ms, told.created_ms) == (record.mailed_ms, record.created_ms)
    ended_ms = person.ended()
    person.swept()
    assert person.told[-1] == (EXPIRED, ended_ms, stored.registration.asked_for_ms)


def guess_too_often(at: Person) -> None:
    number = at.registered().registration.number
    for turn in range(WRONG_IN_A_ROW):
        with pytest.raises(VerificationFailed):
            at.process.verify(ada(), wrong(number, 1 + turn))


@pytest.mark.parametrize("end", [refuse, replace, erase, guess_too_often])
def test_a_registration_that_is_refused_replaced_or_erased_has_no_event_for_that(
    person: Person, end: Callable[[Person], None]
) -> None:
    """Nor has it one when its number would have ended."""
    end(person)
    assert person.told == []
    assert kinds(person.store)["expiry"] == (1 if end is replace else 0)


def test_a_test_registration_confirms_nothing_once_its_service_is_real(person: Person) -> None:
    """It was shown instead of mailed. While its service is a test service, it is told like any other."""
    person.process.test = True
    person.verified(person.sent())
    assert person.delivered() == [SENT, VERIFIED]
    stored = person.sent()
    person.process.test = False
    person.process.users.verify(person.process.service, ada(), stored.registration.number)
    assert person.delivered() == [SENT]
