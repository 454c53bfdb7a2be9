"""note_report.lua, and what a report changes for the other scripts, on a real Valkey."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import redis

from app.domain.registration import Delivery, Registered, Stored, UserRecord
from app.domain.report import ReportKind
from app.errors import AddressRefused, NewerRecord
from app.repositories.keys import Field
from app.repositories.outbox import Settled
from app.repositories.reports import Noted
from tests.api.conftest import at_once, race
from tests.support.faults.redis import everything
from tests.support.people import HOUR_MS, KEY, Process, ada, age_mark
from tests.support.scan import contradictions, kinds
from tests.support.servers import Valkey
from tests.support.values import there

HELD_BACK = [ReportKind.BOUNCED, ReportKind.COMPLAINED]


@pytest.fixture
def here(valkey_server: Valkey, store: redis.Redis) -> Iterator[Process]:
    process = Process(valkey_server.url, ("k" * 32,), "i" * 32)
    yield process
    process.close()


def record_of(here: Process) -> UserRecord:
    return there(here.users.find(here.keys(ada()).user_id))


def settle(here: Process, stored: Stored, delivery: Delivery = Delivery.SENT, error: str = "") -> Any:
    mail = stored.registration
    return here.outbox.settle(mail.user_id, mail.mail_id, there(stored.owner), delivery, error=error)


def sent(here: Process, key: str = "") -> Stored:
    """A registration whose mail was accepted."""
    stored = here.registered(ada(), key=key)
    settle(here, stored)
    return stored


def bounced(here: Process) -> Stored:
    """And has come back."""
    stored = sent(here)
    assert here.reports.note(record_of(here), ReportKind.BOUNCED, "5.1.1")
    return stored


@pytest.mark.parametrize("kind", HELD_BACK)
def test_a_report_is_written_down_and_holds_the_address_back(
    here: Process, store: redis.Redis, kind: ReportKind
) -> None:
    """The registration stays live, and its number good."""
    stored = sent(here)
    before = store.hgetall(here.keys(ada()).user)
    assert here.reports.note(record_of(here), kind, "5.1.1")
    after = store.hgetall(here.keys(ada()).user)
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert changed == {b"s", b"e", b"b"}
    found = record_of(here)
    assert (found.delivery, found.error) == (Delivery(kind.value), f"{kind} 5.1.1")
    assert there(found.reported_ms) >= there(found.mailed_ms)
    (held,) = here.reports.held_back()
    assert (held.user_id, held.kind, held.since_ms) == (found.user_id, kind, found.reported_ms)
    assert held.until_ms == held.since_ms + HOUR_MS
    assert 0 < store.pttl(here.keys(ada()).suppressed) <= HOUR_MS
    assert contradictions(store) == []
    assert here.verify(ada(), stored.registration.number) == "t0ken"


def test_an_address_that_is_held_back_is_neither_registered_nor_mailed_again(
    here: Process, store: redis.Redis
) -> None:
    """At once, and at no cost: what is live stays as it is, and no budget is used."""
    stored = bounced(here)
    before = everything(store)
    with pytest.raises(AddressRefused):
        here.outcome(ada(), key=KEY)
    with pytest.raises(AddressRefused):
        here.resent(ada())
    assert everything(store) == before
    assert here.verify(ada(), stored.registration.number) == "t0ken"


def test_one_service_holds_back_for_itself_alone(here: Process, valkey_server: Valkey) -> None:
    """The same person at another one is another user."""
    bounced(here)
    shop = Process(valkey_server.url, ("k" * 32,), "i" * 32, name="shop")
    assert isinstance(shop.outcome(ada()), Stored)
    shop.close()


def test_erasing_leaves_the_suppression_and_lifting_ends_it(here: Process, store: redis.Redis) -> None:
    """Who erases and registers again would have the dead mailbox mailed again."""
    user_id = bounced(here).registration.user_id
    assert here.users.erase(user_id)
    assert kinds(store)["suppressed"] == 1
    with pytest.raises(AddressRefused):
        here.outcome(ada())
    assert here.reports.lift(user_id)
    assert not here.reports.lift(user_id)
    assert isinstance(here.outcome(ada()), Stored)


def test_a_soft_report_is_only_noted(here: Process, store: redis.Redis) -> None:
    """And says less than one that was for good."""
    sent(here)
    assert here.reports.note(record_of(here), ReportKind.SOFT, "4.4.7")
    found = record_of(here)
    assert (found.delivery, found.error, found.reported_ms) == (Delivery.SENT, "soft 4.4.7", None)
    assert kinds(store)["suppressed"] == 0
    here.reports.note(record_of(here), ReportKind.BOUNCED, "")
    here.reports.note(record_of(here), ReportKind.SOFT, "4.4.7")
    assert record_of(here).error == "bounced"


@pytest.mark.parametrize("kind", [*HELD_BACK, ReportKind.SOFT])
@pytest.mark.parametrize("end", ["replaced", "verified", "erased"])
def test_what_is_live_no_more_is_not_changed_by_a_report(
    here: Process, store: redis.Redis, kind: ReportKind, end: str
) -> None:
    """Not even where it was live when the report was read."""
    stored = sent(here)
    record = record_of(here)
    ends: dict[str, Callable[[], object]] = {
        "replaced": lambda: here.registered(ada()),
        "verified": lambda: here.verify(ada(), stored.registration.number),
        "erased": lambda: here.users.erase(record.user_id),
    }
    ends[end]()
    before = everything(store)
    assert not here.reports.note(record, kind, "5.1.1")
    assert everything(store) == before


def test_a_newer_record_is_left_alone(here: Process, store: redis.Redis) -> None:
    """To a newer process."""
    sent(here)
    record = record_of(here)
    store.hset(here.keys(ada()).user, Field.LAYOUT, 99)
    before = everything(store)
    with pytest.raises(NewerRecord):
        here.reports.note(record, ReportKind.BOUNCED, "")
    assert everything(store) == before


@pytest.mark.parametrize("outcome", [Delivery.SENT, Delivery.PENDING, Delivery.FAILED])
def test_a_report_that_comes_before_the_settling_stays(
    here: Process, store: redis.Redis, outcome: Delivery
) -> None:
    """Redis may have been away just then. The mail is owed no more, whatever its sender says."""
    stored = here.registered(ada())
    here.reports.note(record_of(here), ReportKind.BOUNCED, "5.1.1")
    assert store.zcard(here.keys(ada()).outbox) == 0
    settle(here, stored, outcome, "" if outcome is Delivery.SENT else "451")
    found = record_of(here)
    assert (found.delivery, found.error, found.attempts) == (Delivery.BOUNCED, "bounced 5.1.1", 1)
    assert (found.mailed_ms is not None) == (outcome is Delivery.SENT)
    assert store.zcard(here.keys(ada()).outbox) == store.exists(here.keys(ada()).sender) == 0


def test_a_mail_that_bounced_is_not_owed_to_anybody(here: Process) -> None:
    """Neither a relay nor an operator mails it again."""
    stored = here.registered(ada(), lease_ms=0)
    here.reports.note(record_of(here), ReportKind.BOUNCED, "")
    user_id = stored.registration.user_id
    assert here.outbox.claim(user_id, "another").mail_id == ""
    assert not here.outbox.retry(user_id)
    assert record_of(here).delivery is Delivery.BOUNCED


@pytest.mark.parametrize("outcome", [Delivery.SENT, Delivery.PENDING, Delivery.REFUSED, "released"])
@pytest.mark.parametrize("listens", [False, True])
def test_the_sender_of_an_earlier_mail_owes_nothing_to_an_address_that_bounced(
    here: Process, store: redis.Redis, outcome: Delivery | Literal["released"], listens: bool
) -> None:
    """While it was under way, the mail was asked for again and then one came back: that one is not mailed."""
    here.listens = listens
    stored = here.registered(ada())
    assert there(here.resent(ada())).owner is None
    here.reports.note(record_of(here), ReportKind.BOUNCED, "5.1.1")
    mail = stored.registration
    settled = here.outbox.settle(
        mail.user_id, mail.mail_id, there(stored.owner), outcome, go_on=outcome is not Delivery.PENDING
    )
    assert settled == Settled()
    assert here.outbox.claim(mail.user_id, "relay").mail_id == ""
    assert (record_of(here).delivery, record_of(here).error) == (Delivery.BOUNCED, "bounced 5.1.1")
    assert store.zcard(here.keys(ada()).outbox) == store.exists(here.keys(ada()).sender) == 0
    assert contradictions(store) == []


def test_a_later_mail_may_arrive(here: Process) -> None:
    """After the suppression was lifted: a new mail has no report yet."""
    user_id = bounced(here).registration.user_id
    here.reports.lift(user_id)
    again = there(here.resent(ada()))
    pending = record_of(here)
    assert (pending.delivery, pending.reported_ms) == (Delivery.PENDING, None)
    settle(here, again)
    assert (record_of(here).delivery, record_of(here).error) == (Delivery.SENT, None)
    assert here.reports.note(record_of(here), ReportKind.COMPLAINED, "")
    assert record_of(here).delivery is Delivery.COMPLAINED


def test_a_repetition_of_a_request_is_answered_also_while_the_address_is_held_back(
    here: Process, store: redis.Redis
) -> None:
    """It was carried out before its mail came back; where its answer was lost, the record tells it."""
    sent(here, KEY)
    here.reports.note(record_of(here), ReportKind.BOUNCED, "5.1.1")
    age_mark(store, 6)
    found = here.outcome(ada(), key=KEY)
    assert isinstance(found, Registered)
    assert found.delivery is Delivery.SENT
    assert record_of(here).delivery is Delivery.BOUNCED
    with pytest.raises(AddressRefused):
        here.outcome(ada(), key="another")


def test_a_race_of_reports_and_registrations_leaves_one_truth(here: Process, store: redis.Redis) -> None:
    """Also while the script cache is lost: an address is held back if, and only if, a report found its
    registration live."""
    here.limit = 0
    for _ in range(15):
        store.flushall()
        sent(here)
        record = record_of(here)

        def register() -> bool:
            store.script_flush()
            try:
                here.outcome(ada())
            except AddressRefused:
                return False
            return True

        def note(record: UserRecord = record) -> bool:
            return here.reports.note(record, ReportKind.BOUNCED, "") is not None

        outcomes = race([register, note, register, note])
        noted, registered = outcomes[1] or outcomes[3], outcomes[0] or outcomes[2]
        assert noted != registered
        assert (kinds(store)["suppressed"] == 1) == noted
        assert (record_of(here).delivery is Delivery.BOUNCED) == noted
        assert contradictions(store) == []


def test_of_many_reports_of_one_mail_one_is_new(here: Process, store: redis.Redis) -> None:
    """So that it is counted once. That the person calls it unwanted, too, is new, and the last word."""
    for turn in range(10):
        store.flushall()
        sent(here)
        record = record_of(here)
        kind = HELD_BACK[turn % 2]

        def note(record: UserRecord = record, kind: ReportKind = kind) -> Noted | None:
            return here.reports.note(record, kind, "")

        assert Counter(at_once(8, note)) == {Noted.NEW: 1, Noted.AGAIN: 7}
        then = Noted.NEW if kind is ReportKind.BOUNCED else Noted.AGAIN
        assert here.reports.note(record, HELD_BACK[turn % 2 - 1], "") is then
        assert record_of(here).delivery is Delivery.COMPLAINED


def test_what_is_no_suppression_is_not_listed(here: Process, store: redis.Redis) -> None:
    """Somebody wrote it there."""
    store.set("{000}:suppressed:somebody", "?", px=60_000)
    bounced(here)
    assert len(list(here.reports.held_back())) == 1
