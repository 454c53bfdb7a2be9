"""resend_mail.lua and settle_mail.lua on a real Valkey: the live number once more, by a mail of its own."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import redis

from app.domain.registration import Delivery, Stored
from app.errors import NewerRecord, TooManyRegistrations
from app.repositories.keys import Field
from tests.api.conftest import at_once
from tests.support.people import LEASE_MS, Process, ada
from tests.support.scan import contradictions
from tests.support.servers import Valkey
from tests.support.values import there

Start = Callable[..., Process]


@pytest.fixture
def start(valkey_server: Valkey, store: redis.Redis) -> Iterator[Start]:
    """Starts processes on the same empty store."""
    started: list[Process] = []

    def begin(limit: int = 9, mailbox_limit: int = 0) -> Process:
        process = Process(valkey_server.url, ("k" * 32,), "i" * 32, limit=limit, mailbox_limit=mailbox_limit)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.close()


def settle(process: Process, stored: Stored, delivery: Delivery = Delivery.SENT, *, go_on: bool = False):  # type: ignore[no-untyped-def]
    mail = stored.registration
    return process.outbox.settle(mail.user_id, mail.mail_id, there(stored.owner), delivery, go_on=go_on)


def sent(process: Process) -> Stored:
    """A registration whose mail has gone out."""
    stored = process.registered(ada())
    settle(process, stored)
    return stored


def test_the_same_number_is_mailed_by_another_mail(start: Start, store: redis.Redis) -> None:
    """Number, registration and end stay; the mail has a name of its own, and is owed until it is accepted."""
    process = start()
    first = sent(process).registration
    before = store.hgetall(process.keys(ada()).user)
    again = there(process.resent(ada()))
    assert again.owner
    mail = again.registration
    assert (mail.number, mail.registration_id) == (first.number, first.registration_id)
    assert mail.mail_id == f"{first.mail_id}-1"
    assert 0 < there(mail.left_ms) <= there(first.left_ms)
    assert mail.asked_for_ms >= first.asked_for_ms, "the mail tells when it was asked for"
    after = store.hgetall(process.keys(ada()).user)
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert changed == {b"s", b"k", b"t"}
    assert contradictions(store) == []
    assert store.zcard(process.keys(ada()).outbox) == 1
    assert settle(process, again).delivery is Delivery.SENT
    assert store.zcard(process.keys(ada()).outbox) == 0
    assert there(process.resent(ada())).registration.mail_id == f"{first.mail_id}-2"


def test_a_mail_that_is_under_way_does_not_settle_the_one_that_was_asked_for_again(start: Start) -> None:
    """Its sender goes on with the new one, under the same lease."""
    process = start()
    first = process.registered(ada())
    again = there(process.resent(ada()))
    assert again.owner is None
    settled = settle(process, first, go_on=True)
    assert there(settled.replacement).mail_id == again.registration.mail_id
    followed = first._replace(registration=there(settled.replacement))
    assert settle(process, followed).delivery is Delivery.SENT
    assert process.outbox.claim(first.registration.user_id, "another").mail_id == ""


def test_a_refusal_of_an_earlier_mail_erases_nothing_that_was_asked_for_again(start: Start) -> None:
    """The mail server may take the second one."""
    process = start()
    first = process.registered(ada())
    there(process.resent(ada()))
    assert settle(process, first, Delivery.REFUSED).left
    assert process.users.find(first.registration.user_id) is not None


def test_a_claim_hands_out_what_was_asked_for_again(start: Start) -> None:
    """The process that promised it was killed."""
    process = start()
    sent(process)
    again = there(process.resent(ada(), lease_ms=0))
    claim = process.outbox.claim(again.registration.user_id, "another")
    assert claim.mail_id == again.registration.mail_id
    claimed = there(claim.registration)
    assert claimed.mail_id == again.registration.mail_id
    assert 0 < there(claimed.left_ms) <= there(again.registration.left_ms)
    assert claimed.asked_for_ms == again.registration.asked_for_ms


def test_resends_count_as_registrations_do(start: Start) -> None:
    """The address's budget is one for both, and what it refuses changes nothing."""
    process = start(limit=3)
    sent(process)
    there(process.resent(ada()))
    there(process.resent(ada(), lease_ms=0))
    record = process.users.find(process.keys(ada()).user_id)
    with pytest.raises(TooManyRegistrations) as caught:
        process.resent(ada())
    assert 3500 < there(caught.value.retry_after_s) <= 3600
    assert process.users.find(process.keys(ada()).user_id) == record
    with pytest.raises(TooManyRegistrations):
        process.registered(ada())


def test_a_registration_that_was_replaced_is_not_mailed_again(start: Start, store: redis.Redis) -> None:
    """Between its look-up and the script: what the caller asked for is gone."""
    process = start()
    sent(process)
    old = there(process.users.find(process.keys(ada()).user_id))
    newer = process.registered(ada()).registration
    assert process.users.resend(old, process.service, lease_ms=LEASE_MS) is None
    assert store.hget(process.keys(ada()).user, Field.RESENDS) is None
    assert there(process.users.find(newer.user_id)).registration_id == newer.registration_id


def test_what_only_a_newer_process_can_read_is_left_to_it(start: Start, store: redis.Redis) -> None:
    """It knows what belongs to a resend."""
    process = start()
    sent(process)
    record = there(process.users.find(process.keys(ada()).user_id))
    store.hset(process.keys(ada()).user, Field.LAYOUT, 99)
    with pytest.raises(NewerRecord):
        process.users.resend(record, process.service, lease_ms=LEASE_MS)


def test_no_race_of_resends_overdraws_the_budget_or_shares_a_name(start: Start, store: redis.Redis) -> None:
    """Also while the script cache is lost again and again; one of them has the lease."""
    process = start(limit=9)
    sent(process)

    def ask() -> Stored | None:
        store.script_flush()
        try:
            return process.resent(ada())
        except TooManyRegistrations:
            return None

    found = [each for each in at_once(32, ask) if each is not None]
    assert len(found) == 8
    assert len({each.registration.mail_id for each in found}) == 8
    assert Counter(each.owner is not None for each in found) == {True: 1, False: 7}
    assert contradictions(store) == []
