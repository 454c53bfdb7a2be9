"""The clock of Redis is set back an hour: what was written before lies an hour ahead, and holds nobody up."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from app.domain.registration import Delivery, Registered, Stored
from app.errors import TooManyAttempts, TooManyRegistrations, VerificationFailed
from app.repositories.keys import RELAY_LOCK
from app.repositories.scripts import LONGEST_LEASE_MS, LONGEST_MAIL_WAIT_MS
from tests.api.conftest import wrong
from tests.support.people import HOUR_MS, KEY, LEASE_MS, Process, ada
from tests.support.servers import MailServer, Valkey, gunicorn
from tests.support.values import text


def set_back(store: redis.Redis) -> None:
    """What Redis looks like afterwards: it keeps every end of a life as a moment, and so do we."""
    for key in store.scan_iter("*", count=1000):
        if (left_ms := store.pttl(key)) > 0:
            store.pexpire(key, left_ms + HOUR_MS)
        kind = key.split(b":")[1]
        if kind == b"outbox":
            for user_id in store.zrange(key, 0, -1):
                store.zincrby(key, HOUR_MS, text(user_id))
        elif kind == b"user":
            for name in ("c", "x", "m", "t"):
                if store.hexists(key, name):
                    store.hincrby(key, name, HOUR_MS)
        elif kind == b"idempotency":
            fingerprint, registration, created, expires, delivery = text(store.get(key)).split("|")
            times = f"{int(created) + HOUR_MS}|{int(expires) + HOUR_MS}"
            later = f"{fingerprint}|{registration}|{times}|{delivery}"
            store.set(key, later, keepttl=True)


@pytest.fixture
def process(valkey_server: Valkey, store: redis.Redis) -> Iterator[Process]:
    found = Process(valkey_server.url, mailbox_limit=5)
    yield found
    found.close()


def test_a_pending_mail_goes_out_at_once(
    tmp_path: Path, environment: dict[str, str], process: Process, mail_server: MailServer, store: redis.Redis
) -> None:
    """The running service finds it at its first sweep."""
    stored = process.registered(ada(), lease_ms=0)
    set_back(store)
    with gunicorn(tmp_path, environment):
        (mail,) = mail_server.box.wait_for("ada@example.com", timeout_s=30)
        assert mail.number == stored.registration.number


def test_what_lies_too_far_ahead_is_due(process: Process, store: redis.Redis) -> None:
    """And can be claimed; what waits as long as a wait can be is not."""
    stored = process.registered(ada())
    assert stored.owner
    ours = stored.registration
    keys = process.keys(ada())
    process.outbox.settle(ours.user_id, ours.mail_id, stored.owner, Delivery.PENDING, wait_ms=900_000)
    now_ms = process.outbox.now_ms()
    assert process.outbox.due([keys.shard], now_ms, 10) == []
    assert process.outbox.claim(ours.user_id, "me").later_ms
    set_back(store)
    (due,) = process.outbox.due([keys.shard], now_ms, 10)
    assert due.due_ms <= now_ms
    assert process.outbox.claim(ours.user_id, "me").registration


def test_no_wait_of_ours_is_too_far_ahead(process: Process, store: redis.Redis) -> None:
    """The longest wait, under the longest lease."""
    stored = process.registered(ada(), lease_ms=LONGEST_LEASE_MS)
    keys = process.keys(ada())
    store.zadd(
        keys.outbox, {stored.registration.user_id: process.outbox.now_ms() + LONGEST_MAIL_WAIT_MS - 1000}
    )
    assert process.outbox.due([keys.shard], process.outbox.now_ms(), 10) == []


def test_the_lease_of_a_dead_sender_ends_in_its_own_time(process: Process, store: redis.Redis) -> None:
    """Whoever finds it an hour long cuts it to the longest that there is; a live sender renews it."""
    stored = process.registered(ada())
    assert stored.owner
    sender = process.keys(ada()).sender
    set_back(store)
    claim = process.outbox.claim(stored.registration.user_id, "another")
    assert claim.later_ms is not None
    assert claim.later_ms <= LONGEST_LEASE_MS
    assert store.pttl(sender) <= LONGEST_LEASE_MS
    assert process.outbox.renew(stored.registration.user_id, stored.owner)
    assert store.pttl(sender) <= LEASE_MS


def test_the_lock_of_a_dead_sweeper_ends_in_its_own_time(process: Process, store: redis.Redis) -> None:
    """Else nobody would sweep for an hour."""
    assert process.outbox.hold_relay("dead", 12_500)
    set_back(store)
    assert not process.outbox.hold_relay("living", 12_500)
    assert store.pttl(RELAY_LOCK) <= 12_500


def test_budgets_end_in_their_own_time(process: Process, store: redis.Redis) -> None:
    """Nobody is told to wait longer than the window."""
    for _ in range(process.limit):
        number = process.registered(ada()).registration.number
    for _ in range(process.limit):
        with pytest.raises(VerificationFailed):
            process.verify(ada(), wrong(number))
    set_back(store)
    keys = process.keys(ada())
    (mailbox,) = map(text, store.scan_iter("*:mailbox:*"))
    assert store.pttl(keys.sends) > HOUR_MS
    with pytest.raises(TooManyRegistrations) as registrations:
        process.registered(ada())
    with pytest.raises(TooManyAttempts) as attempts:
        process.verify(ada(), number)
    for told, key in ((registrations, keys.sends), (registrations, mailbox), (attempts, keys.tries)):
        assert told.value.retry_after_s == 3600
        assert store.pttl(key) <= HOUR_MS


def test_a_request_of_before_does_not_count_as_running(process: Process, store: redis.Redis) -> None:
    """It is answered from the record."""
    assert isinstance(process.outcome(ada(), key=KEY), Stored)
    set_back(store)
    assert isinstance(process.outcome(ada(), key=KEY), Registered)
