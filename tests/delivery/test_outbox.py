"""The scripts of the outbox on a real Valkey: races, lost script caches, and every answer."""

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest
import redis

from app.domain.registration import Delivery
from app.repositories.keys import RELAY_LOCK, Field, keys_of
from app.repositories.outbox import Dropped
from app.repositories.records import LAYOUT_VERSION
from app.repositories.scripts import GIVE_UP_MAIL_MS
from tests.delivery.outbox import LEASE_MS, SECRET, THREADS, Store, at_once, beginning
from tests.support.scan import contradictions, kinds
from tests.support.servers import Valkey
from tests.support.values import text, there
from tests.support.waiting import wait_until


@pytest.fixture
def here(valkey_server: Valkey, store: redis.Redis) -> Store:
    return Store(valkey_server.url)


# Claiming


def test_a_due_mail_is_claimed_by_one_of_many(here: Store) -> None:
    """The others hear how long the lease may last."""
    registration = here.register(lease_ms=0).registration
    claims = at_once(lambda number: here.outbox.claim(registration.user_id, f"owner{number}"))
    (winner,) = [claim.registration for claim in claims if claim.registration]
    assert winner.number == registration.number
    assert all(0 < there(claim.later_ms) <= LEASE_MS for claim in claims if not claim.registration)


def test_a_registration_and_a_claim_never_both_get_the_lease(here: Store) -> None:
    """Of an address that registers again while its mail is due."""
    for _ in range(20):
        registration = here.register(lease_ms=0).registration

        def either(number: int, user_id: str = registration.user_id) -> bool:
            if number % 2:
                return here.outbox.claim(user_id, f"owner{number}").registration is not None
            return here.register().owner is not None

        assert sum(at_once(either, 8)) == 1
        here.client.servers()[0].command("FLUSHALL")


def test_a_mail_that_waits_for_its_next_try_is_not_claimed_before(here: Store) -> None:
    """Whatever a process remembers: Redis knows when it is due."""
    stored = here.register()
    here.settle(stored.registration, stored.owner, Delivery.PENDING, wait_ms=30_000, error="recipient 450")
    claim = here.outbox.claim(stored.registration.user_id, "other")
    assert claim.registration is None
    assert 29_000 < there(claim.later_ms) <= 30_000


def test_an_entry_without_a_record_is_dropped(here: Store, store: redis.Redis) -> None:
    """A registration can expire before its mail goes out."""
    registration = here.register(lease_ms=0).registration
    store.delete(keys_of(registration.user_id).user)
    assert here.outbox.claim(registration.user_id, "me").registration is None
    assert kinds(store)["outbox"] == kinds(store)["sender"] == 0
    store.flushall()


def test_a_mail_that_is_older_than_a_day_is_given_up(here: Store, store: redis.Redis) -> None:
    """At the claim, where the service or the mail server was away, and at the settling."""
    registration = here.register(lease_ms=0).registration
    keys = keys_of(registration.user_id)
    store.hset(keys.user, Field.CREATED_MS, registration.asked_for_ms - GIVE_UP_MAIL_MS)
    assert here.outbox.claim(registration.user_id, "me").registration is None
    assert there(here.users.find(registration.user_id)).error == "too old"
    assert here.delivery(registration) is Delivery.FAILED
    stored = here.register("bob@example.com")
    store.hset(
        keys_of(stored.registration.user_id).user,
        Field.CREATED_MS,
        stored.registration.asked_for_ms - GIVE_UP_MAIL_MS + 5000,
    )
    here.settle(stored.registration, stored.owner, Delivery.PENDING, wait_ms=6000, error="connect refused")
    assert here.delivery(stored.registration) is Delivery.FAILED
    assert kinds(store)["outbox"] == kinds(store)["sender"] == 0


def test_a_record_of_a_newer_layout_is_left_to_a_newer_process(here: Store, store: redis.Redis) -> None:
    """Claimed or found at the settling: nothing of it is read and its entry stays."""
    stored = here.register()
    newer = here.register().registration
    store.hset(keys_of(newer.user_id).user, Field.LAYOUT, LAYOUT_VERSION + 1)
    settled = here.settle(stored.registration, stored.owner, Delivery.SENT, go_on=True)
    assert settled.left
    assert here.outbox.claim(newer.user_id, "me") == type(here.outbox.claim(newer.user_id, "me"))()
    assert kinds(store)["outbox"] == 1
    assert kinds(store)["sender"] == 0


def test_a_record_that_does_not_open_is_claimed_as_unreadable(
    valkey_server: Valkey, store: redis.Redis
) -> None:
    """Sealed with a key that this process lacks."""
    registration = Store(valkey_server.url, SECRET).register(lease_ms=0).registration
    claim = Store(valkey_server.url).outbox.claim(registration.user_id, "me")
    assert claim.unreadable
    assert claim.mail_id == registration.mail_id


# Settling


def test_many_settlings_of_one_mail_count_once(here: Store, store: redis.Redis) -> None:
    """A settling whose answer was lost is repeated; a repeat of `sent` changes nothing but the counter."""
    stored = here.register()
    settled = at_once(
        lambda _: here.settle(stored.registration, stored.owner, Delivery.PENDING, wait_ms=1000)
    )
    assert sum(not each.lost for each in settled) == 1
    assert there(here.users.find(stored.registration.user_id)).attempts == 1


def test_a_settling_by_someone_else_changes_nothing(here: Store) -> None:
    """Owner and registration must both be right."""
    stored = here.register()
    for delivery in Delivery:
        assert here.settle(stored.registration, "thief", delivery).lost
    assert here.release(stored.registration, "thief").lost
    assert here.delivery(stored.registration) is Delivery.PENDING


def test_a_settling_races_with_registering_again_and_the_last_number_is_mailed(here: Store) -> None:
    """Whoever comes first: the sender gets the new number, or the new registration starts its own send."""
    for _ in range(50):
        stored = here.register()
        with ThreadPoolExecutor(2) as pool:
            begin = Barrier(2)
            settling = pool.submit(
                beginning,
                begin,
                partial(here.settle, stored.registration, stored.owner, Delivery.SENT, go_on=True),
            )
            registering = pool.submit(beginning, begin, here.register)
        settled, new = settling.result(), registering.result()
        if settled.replacement:
            assert settled.replacement.registration_id == new.registration.registration_id
            assert new.owner is None
        else:
            assert new.owner is not None
        assert here.delivery(new.registration) is Delivery.PENDING
        here.client.servers()[0].command("FLUSHALL")


def test_an_erasure_after_a_refusal_takes_only_the_registration_that_was_refused(
    here: Store, store: redis.Redis
) -> None:
    """A registration that took its place stays, with its number and its entry."""
    stored = here.register()
    new = here.register().registration
    settled = here.settle(stored.registration, stored.owner, Delivery.REFUSED, go_on=True)
    assert there(settled.replacement).registration_id == new.registration_id
    assert kinds(store)["user"] == kinds(store)["number"] == kinds(store)["outbox"] == 1
    here.settle(new, stored.owner, Delivery.REFUSED)
    assert kinds(store).total() == 0


def test_a_mail_that_was_accepted_after_its_lease_ran_out_is_settled_if_nobody_came_after(
    here: Store, store: redis.Redis
) -> None:
    """What the server accepted is the truth; a retry, an erasure by a late sender is not."""
    stored = here.register()
    store.delete(keys_of(stored.registration.user_id).sender)
    for delivery in (Delivery.PENDING, Delivery.FAILED, Delivery.REFUSED):
        assert here.settle(stored.registration, stored.owner, delivery).lost
    assert here.release(stored.registration, stored.owner).lost
    here.settle(stored.registration, stored.owner, Delivery.SENT)
    assert here.delivery(stored.registration) is Delivery.SENT


def test_a_late_mail_that_overtook_the_live_number_has_it_mailed_again(
    here: Store, store: redis.Redis
) -> None:
    """Its sender outlived its lease; meanwhile the new number was mailed. The live number must come last."""
    stored = here.register()
    keys = keys_of(stored.registration.user_id)
    store.delete(keys.sender)
    new = here.register()
    here.settle(new.registration, new.owner, Delivery.SENT)
    settled = here.settle(stored.registration, stored.owner, Delivery.SENT, go_on=True)
    assert there(settled.replacement).registration_id == new.registration.registration_id
    assert text(store.get(keys.sender)) == stored.owner


def test_a_lease_that_is_given_back_makes_the_mail_due_and_counts_no_attempt(here: Store) -> None:
    """At a shutdown, or when the breaker opens before the send."""
    stored = here.register()
    here.release(stored.registration, stored.owner)
    claim = here.outbox.claim(stored.registration.user_id, "next")
    assert (claim.mail_id, claim.attempts) == (stored.registration.mail_id, 0)


# Leases and the lock


def test_a_lease_is_kept_by_its_owner_alone(here: Store, store: redis.Redis) -> None:
    """Its outbox entry moves with it; one that has ended is not revived."""
    stored = here.register()
    keys = keys_of(stored.registration.user_id)
    store.pexpire(keys.sender, 1000)
    kept = at_once(lambda number: here.renew(keys.user_id, stored.owner if number == 5 else "thief"))
    assert sum(kept) == 1
    assert store.pttl(keys.sender) > 50_000
    assert there(store.zscore(keys.outbox, keys.user_id)) - stored.registration.asked_for_ms >= LEASE_MS
    store.delete(keys.sender)
    assert not here.renew(keys.user_id, stored.owner)
    assert not store.exists(keys.sender)


def test_a_renewal_after_an_erasure_brings_no_entry_back(here: Store, store: redis.Redis) -> None:
    """The lease outlives the record; the outbox entry does not."""
    stored = here.register()
    here.users.erase(stored.registration.user_id)
    assert here.renew(stored.registration.user_id, stored.owner)
    assert kinds(store)["outbox"] == 0


def test_one_of_many_holds_the_relay_until_it_lets_go(here: Store, store: redis.Redis) -> None:
    """Or until its time is up."""
    won = at_once(lambda number: here.outbox.hold_relay(f"owner{number}", 60_000))
    assert sum(won) == 1
    holder = f"owner{won.index(True)}"
    assert here.outbox.hold_relay(holder, 60_000)
    assert not here.outbox.hold_relay("other", 0)
    assert here.outbox.hold_relay(holder, 0)
    assert here.outbox.hold_relay("other", 200)
    wait_until(lambda: here.outbox.hold_relay("third", 60_000), 30)


# Everything again after SCRIPT FLUSH


@pytest.mark.parametrize("what", ["a lock without an end", "no lock"])
def test_nobody_waits_for_ever_for_the_lock_of_the_relay(here: Store, store: redis.Redis, what: str) -> None:
    """By somebody's hand, or by a restore that keeps no ends: sweeping stops for a moment at most."""
    if what == "no lock":
        store.rpush(RELAY_LOCK, "x")
    else:
        store.set(RELAY_LOCK, "somebody")
    wait_until(lambda: here.outbox.hold_relay("me", 200), 30, "it can be had")


def test_every_script_survives_the_loss_of_the_script_cache(here: Store, store: redis.Redis) -> None:
    """A restart or SCRIPT FLUSH costs a second round trip and nothing else."""

    def flushed() -> Store:
        store.script_flush()
        return here

    stored = flushed().register()
    user_id = stored.registration.user_id
    assert flushed().renew(user_id, stored.owner)
    assert flushed().settle(stored.registration, stored.owner, Delivery.PENDING).delivery is Delivery.PENDING
    assert flushed().outbox.claim(user_id, "me").registration is not None
    assert flushed().outbox.hold_relay("me", 1000)
    assert flushed().outbox.retry(user_id)
    assert flushed().outbox.drop(user_id) is Dropped.SENDING
    assert contradictions(store) == []


# The operator


def test_an_operator_sees_what_is_pending_and_failed(here: Store) -> None:
    """With reason, attempts and time; sent mails are not listed."""
    pending, failed, sent = (here.register(f"{name}@example.com") for name in ("pending", "failed", "sent"))
    here.settle(
        pending.registration, pending.owner, Delivery.PENDING, wait_ms=60_000, error="connect refused"
    )
    here.settle(failed.registration, failed.owner, Delivery.FAILED, error="recipient 550 5.1.1")
    here.settle(sent.registration, sent.owner, Delivery.SENT)
    (one,) = here.census.pending()
    assert (one.user_id, one.error, one.attempts) == (pending.registration.user_id, "connect refused", 1)
    assert there(one.due_ms) - one.asked_for_ms >= 60_000
    assert here.census.address(one) == "pending@example.com"
    (other,) = here.census.failed()
    assert (other.user_id, other.error, other.due_ms) == (
        failed.registration.user_id,
        "recipient 550 5.1.1",
        None,
    )


def test_a_failed_mail_can_be_made_due_again_for_another_day(here: Store, store: redis.Redis) -> None:
    """Its age counts from then; a sent one, or none, cannot."""
    stored = here.register()
    keys = keys_of(stored.registration.user_id)
    store.hset(keys.user, Field.CREATED_MS, stored.registration.asked_for_ms - 2 * GIVE_UP_MAIL_MS)
    here.settle(stored.registration, stored.owner, Delivery.FAILED, error="x")
    assert sum(at_once(lambda _: here.outbox.retry(keys.user_id))) == THREADS
    claim = here.outbox.claim(keys.user_id, "me")
    assert claim.registration is not None
    here.settle(stored.registration, "me", Delivery.PENDING, wait_ms=1000, error="x")
    assert here.delivery(stored.registration) is Delivery.PENDING
    claimed = here.register("bob@example.com")
    here.settle(claimed.registration, claimed.owner, Delivery.SENT)
    assert not here.outbox.retry(claimed.registration.user_id)
    assert not here.outbox.retry("a" * 26)


def test_a_mail_can_be_dropped_unless_it_is_being_sent(here: Store, store: redis.Redis) -> None:
    """The registration stays, and says that its mail failed and why."""
    stored = here.register()
    user_id = stored.registration.user_id
    assert here.outbox.drop(user_id) is Dropped.SENDING
    here.release(stored.registration, stored.owner)
    dropped = at_once(lambda _: here.outbox.drop(user_id))
    assert dropped.count(Dropped.DROPPED) == 1
    assert dropped.count(Dropped.NONE) == THREADS - 1
    assert there(here.users.find(user_id)).error == "dropped by the operator"
    assert contradictions(store) == []


def test_the_commands_show_no_address_unless_asked(
    valkey_server: Valkey, here: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """list, retry and drop, as an operator types them."""
    from app import create_app
    from app.config import Settings

    runner = create_app(Settings(redis_url=valkey_server.url)).test_cli_runner()
    stored = here.register("ada@example.com")
    here.settle(stored.registration, stored.owner, Delivery.PENDING, wait_ms=90_000, error="connect refused")
    user_id = stored.registration.user_id
    listed = runner.invoke(args=["outbox", "list"])
    assert re.search(rf"{user_id}\tpending\t1\t\ds\t(89|90)s\tconnect refused\n", listed.output)
    assert "ada@example.com" not in listed.output
    assert "ada@example.com" in runner.invoke(args=["outbox", "list", "--addresses"]).output
    assert user_id not in runner.invoke(args=["outbox", "list", "--failed"]).output
    assert runner.invoke(args=["outbox", "retry", user_id]).output == "1 mails are due now\n"
    assert here.outbox.claim(user_id, "me").registration is not None
    assert runner.invoke(args=["outbox", "drop", user_id]).exit_code == 1
    here.settle(stored.registration, "me", Delivery.PENDING)
    assert runner.invoke(args=["outbox", "drop", user_id]).output == "dropped\n"
    assert "dropped by the operator" in runner.invoke(args=["outbox", "list", "--failed"]).output
    assert runner.invoke(args=["outbox", "drop", user_id]).exit_code == 1
    assert runner.invoke(args=["outbox", "retry", "--failed"]).output == "1 mails are due now\n"
    assert runner.invoke(args=["outbox", "retry"]).exit_code == 2
