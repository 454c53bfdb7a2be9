"""What comes first, and how often it is told."""

import pytest

from app.domain.registration import Delivery, Stored
from app.domain.report import ReportKind
from tests.support.changes import BOUNCED, COMPLAINED, FAILED, SENT, VERIFIED, failed
from tests.support.people import ada
from tests.support.telling import Person
from tests.support.values import there


def test_a_number_that_is_handed_in_before_the_settling_was_sent_before(person: Person) -> None:
    """Who knows it has the mail. The settling finds nothing more to tell."""
    stored = person.registered()
    person.verified(stored)
    assert person.kinds == [SENT, VERIFIED]
    person.settled(stored)
    assert person.kinds == [SENT, VERIFIED]


@pytest.mark.parametrize("kind", [ReportKind.BOUNCED, ReportKind.COMPLAINED])
def test_a_mail_that_is_reported_before_the_settling_was_sent_before(
    person: Person, kind: ReportKind
) -> None:
    """However often its settling is repeated afterwards."""
    stored = person.registered()
    person.reported(kind)
    for _ in range(3):
        person.settled(stored)
    assert person.kinds == [SENT, kind.value]


def test_a_settling_that_is_repeated_tells_nothing_twice(person: Person) -> None:
    """Its answer was lost, and nobody knows whether it was carried out."""
    stored = person.registered()
    for _ in range(3):
        person.settled(stored)
    assert person.kinds == [SENT]


@pytest.mark.parametrize("go_on", [False, True])
def test_it_does_not_either_where_another_mail_was_asked_for_meanwhile(person: Person, go_on: bool) -> None:
    """Before the settling or after it."""
    stored = person.registered()
    there(person.process.resent(ada()))
    for _ in range(2):
        person.settled(stored, go_on=go_on)
    assert person.kinds == [SENT]


def test_it_does_not_either_where_the_mail_came_back_meanwhile(person: Person) -> None:
    """The report came between the settling and its repetition."""
    stored = person.sent()
    person.reported()
    person.settled(stored)
    assert person.kinds == [SENT, BOUNCED]


def test_each_mail_that_is_accepted_is_told_once(person: Person) -> None:
    """Each resend is a mail; one that came back does not keep the next from being told."""
    first = person.sent()
    for turn in (1, 2):
        person.reported(mail=turn - 1)
        again = there(person.process.resent(ada()))
        for _ in range(2):
            person.settled(again)
    person.verified(first)
    assert person.kinds == [SENT, BOUNCED, SENT, BOUNCED, SENT, VERIFIED]


def test_a_report_tells_of_the_mail_that_it_is_about(person: Person) -> None:
    """That of the resend, whose acceptance is not written down yet."""
    person.sent()
    again = there(person.process.resent(ada()))
    person.reported(mail=1)
    person.settled(again)
    assert person.kinds == [SENT, SENT, BOUNCED]


def test_the_same_report_is_told_once(person: Person) -> None:
    """Mail servers repeat themselves."""
    person.sent()
    for kind in (ReportKind.BOUNCED, ReportKind.BOUNCED, ReportKind.SOFT, ReportKind.COMPLAINED):
        person.reported(kind)
    assert person.kinds == [SENT, BOUNCED, COMPLAINED]


def test_two_reports_in_turn_are_told_once_each(person: Person) -> None:
    """Who got a mail may send both for ever; each would be one more event that waits."""
    person.sent()
    for kind in 3 * (ReportKind.BOUNCED, ReportKind.COMPLAINED):
        person.reported(kind)
    assert person.kinds == [SENT, BOUNCED, COMPLAINED]
    record = there(person.process.users.find(person.user_id))
    assert (record.delivery, record.error) == (Delivery.COMPLAINED, "complained 5.1.1")


def test_a_mail_that_failed_may_be_sent_after_all(person: Person) -> None:
    """An operator has it tried again."""
    failed(person)
    assert person.process.outbox.retry(person.user_id)
    claim = person.process.outbox.claim(person.user_id, "me")
    person.settled(Stored(there(claim.registration), "me"))
    assert person.kinds == [FAILED, SENT]


def test_a_mail_of_a_registration_that_was_replaced_is_not_told(person: Person) -> None:
    """Its number is good no more."""
    old = person.registered()
    new = person.registered()
    person.settled(old, go_on=True)
    assert person.told == []
    person.settled(Stored(new.registration, old.owner))
    assert [event.created_ms for event in person.told] == [new.registration.asked_for_ms]
