"""One key that is wrong costs only itself: its neighbours' mails go out, and counts and listings go on."""

import time
from collections.abc import Iterator
from itertools import count, islice, product

import pytest
import redis

from app.domain.address import Address
from app.domain.registration import Delivery
from app.repositories.keys import Field, keys_of, shard_keys
from app.repositories.records import Sealer
from app.repositories.scripts import GIVE_UP_MAIL_MS
from app.repositories.seals import Seals
from app.services.delivery.leases import Leases
from app.services.delivery.relay import ENTRIES_A_SHARD
from tests.delivery.conftest import Serve, serve, smtp
from tests.support.people import LEASE_MS, Process
from tests.support.servers import Valkey
from tests.support.smtp import Conversation, ScriptedSmtp
from tests.support.waiting import wait_until

__all__ = ["serve", "smtp"]  # fixtures

ADA, BOB = Address.parse("ada@example.com"), Address.parse("bob@example.com")
EMPTY_SHARD = 7
"""Neither Ada nor Bob is in it."""


@pytest.fixture
def process(valkey_server: Valkey, store: redis.Redis) -> Iterator[Process]:
    found = Process(valkey_server.url)
    yield found
    found.close()
    store.flushall()


def spoil(store: redis.Redis, key: str) -> None:
    """A string stands where something else should."""
    store.set(key, "somebody's note", px=60_000)


def due(process: Process) -> set[str]:
    found = process.outbox.due(range(1000), process.outbox.now_ms() + LEASE_MS, 100)
    return {entry.user_id for entry in found}


def test_a_spoiled_outbox_costs_its_shard_alone(process: Process, store: redis.Redis) -> None:
    """The sweep finds the mails of all other shards; so do listings and counts."""
    ada = process.registered(ADA, lease_ms=0).registration
    spoil(store, shard_keys(EMPTY_SHARD).outbox)
    spoil(store, process.keys(BOB).outbox)
    assert due(process) == {ada.user_id}
    assert [mail.user_id for mail in process.census.pending()] == [ada.user_id]
    assert process.census.owed().depth == 1
    assert process.census.owed().oldest_ms == ada.asked_for_ms


def test_a_spoiled_record_is_left_out_of_listings(process: Process, store: redis.Redis) -> None:
    """Pending and given-up mails of others are told."""
    ada = process.registered(ADA, lease_ms=0).registration
    bob = process.registered(BOB, lease_ms=0).registration
    spoil(store, process.keys(BOB).user)
    assert [mail.user_id for mail in process.census.pending()] == [ada.user_id]
    assert process.census.owed().oldest_ms == ada.asked_for_ms
    store.hset(process.keys(ADA).user, Field.DELIVERY, "failed")
    assert [mail.user_id for mail in process.census.failed()] == [ada.user_id]
    seals = Seals(process.client, Sealer([]))
    assert {record.user_id for record in seals.read([ada.user_id, bob.user_id]) if record.sealed} == {
        ada.user_id
    }


def test_keys_with_names_like_ours_are_counted_out(process: Process, store: redis.Redis) -> None:
    """Whoever goes through all keys meets those of others, too."""
    ada = process.registered(ADA, lease_ms=0).registration
    for name in (b"{\xff\xfe}:user:\xff", b"{abc}:number:x", b"{abc}:user:"):
        store.set(name, 1, px=60_000)
    assert process.census.numbers_by_shard() == {process.keys(ADA).shard: 1}
    assert list(process.census.failed()) == []
    seals = Seals(process.client, Sealer([]))
    assert [record.user_id for record in seals.sample(10)] == [ada.user_id]
    assert [record.user_id for record in seals.read(seals.user_ids())] == [ada.user_id]


@pytest.mark.parametrize("score", ["inf", "-inf", "1e300"])
def test_an_entry_that_no_process_of_ours_has_written_is_due_and_hurts_nobody(
    process: Process, store: redis.Redis, score: str
) -> None:
    """A time without end, or a member that is no name."""
    ada = process.registered(ADA, lease_ms=0).registration
    store.zadd(shard_keys(EMPTY_SHARD).outbox, {b"\xff\xfe": float(score)})
    assert ada.user_id in due(process)
    assert len(due(process)) == 2
    assert [mail.user_id for mail in process.census.pending()] == [ada.user_id]
    assert process.census.owed().oldest_ms == ada.asked_for_ms
    store.zadd(process.keys(ADA).outbox, {ada.user_id: float(score)})
    assert [mail.user_id for mail in process.census.pending()] == [ada.user_id]


def test_a_lease_that_cannot_be_renewed_lets_the_others_be_renewed(
    process: Process, store: redis.Redis
) -> None:
    """Redis answers, so the fault is that lease's own."""
    now = [time.monotonic()]
    leases = Leases(process.outbox, lambda: now[0])
    for address in (BOB, ADA):
        stored = process.registered(address)
        assert stored.owner
        leases.hold(stored.owner, stored.registration.user_id, now[0])
    keys = process.keys(ADA)
    store.pexpire(keys.sender, 1000)
    spoil(store, process.keys(BOB).outbox)
    now[0] += LEASE_MS / 1000 / 2
    leases.renew()
    assert store.pttl(keys.sender) > 1000


def test_mails_of_a_dead_process_go_out_beside_keys_that_are_spoiled(
    serve: Serve, smtp: ScriptedSmtp, process: Process, store: redis.Redis
) -> None:
    """Spoiled are an outbox and the record of a mail that is a day late, in the neighbours' batch."""
    late = process.registered(BOB, lease_ms=0).registration
    keys = process.keys(BOB)
    spoil(store, keys.user)
    store.zadd(keys.outbox, {late.user_id: late.asked_for_ms - 2 * GIVE_UP_MAIL_MS})
    spoilt_shard = keys.shard // 100 * 100 + (keys.shard + 1) % 100
    spoil(store, shard_keys(spoilt_shard).outbox)
    addresses = (Address.parse(f"neighbour{turn}@example.com") for turn in count())
    shards = ((address, process.keys(address).shard) for address in addresses)
    close_by = (address for address, at in shards if at // 100 == keys.shard // 100 and at != spoilt_shard)
    neighbours = list(islice(close_by, 20))
    for neighbour in neighbours:
        process.registered(neighbour, lease_ms=0)
    serve(smtp)
    wait_until(lambda: len(smtp.mails) == len(neighbours), 30, "the neighbours' mails go out")


def test_entries_that_no_script_can_read_hold_up_nobody_behind_them(
    serve: Serve, smtp: ScriptedSmtp, process: Process, store: redis.Redis
) -> None:
    """As many as a sweep looks at in one shard, all of them due before the mail that is owed."""
    keys = process.keys(ADA)
    user_ids = (f"{keys.user_id[:20]}{''.join(end)}" for end in product("bcdefghi", repeat=6))
    shard_mates = (user_id for user_id in user_ids if keys_of(user_id).shard == keys.shard)
    spoilt = list(islice(shard_mates, ENTRIES_A_SHARD + 1))
    assert len(spoilt) == ENTRIES_A_SHARD + 1
    for user_id in spoilt:
        store.hset(keys_of(user_id).user, "v", "no number")
    store.zadd(keys.outbox, dict.fromkeys(spoilt, 1))
    process.registered(ADA, lease_ms=0)
    serve(smtp)
    wait_until(lambda: len(smtp.mails) == 1, 30, "the mail behind them goes out")
    store.flushall()


def test_what_is_under_way_when_its_outbox_is_spoiled_stops_nobody(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """One connection, one mail that cannot be settled: the next does not wait for the end of its lease."""
    service = serve(smtp, mail_connections=1, mail_timeout_s=5.0)
    key = service.records.keys("ada@example.com").outbox

    async def spoiling(conversation: Conversation, usual: str) -> str:
        store.delete(key)
        spoil(store, key)
        return usual

    smtp.script["content"] = spoiling
    assert service.register("ada@example.com")[0].status_code == 202
    smtp.script.clear()
    assert service.register("next@example.com")[0].status_code == 201
    assert service.delivery("next@example.com") == Delivery.SENT
    store.flushall()


def test_a_command_that_is_forbidden_to_a_script_is_no_fault_of_one_key(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """Nor is its mail put off and mailed once more: it is settled as soon as the command is granted."""
    service = serve(smtp, mail_timeout_s=5.0)

    async def forbidding(conversation: Conversation, usual: str) -> str:
        store.execute_command("ACL", "SETUSER", "default", "-zscore")
        return usual

    smtp.script["content"] = forbidding
    try:
        assert service.register("ada@example.com")[0].status_code == 202
    finally:
        store.execute_command("ACL", "SETUSER", "default", "+zscore")
    wait_until(lambda: service.delivery("ada@example.com") == Delivery.SENT, 10)
    assert len(smtp.to("ada@example.com")) == 1
    store.flushall()
