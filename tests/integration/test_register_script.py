"""register.lua on a real Valkey: one decision, whoever races for it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import TypeVar

import pytest
import redis

from app.domain.address import Address
from app.domain.number import NumberGenerator
from app.domain.registration import Draft, Stored
from app.domain.service import Service
from app.repositories.keys import Field, Names
from app.repositories.records import Sealer
from app.repositories.users import Users
from app.storage.storage import Storage
from tests.support.people import DIGITS
from tests.support.records import Records
from tests.support.scan import contradictions, kinds
from tests.support.servers import Valkey
from tests.support.values import text, there
from tests.support.waiting import wait_until

THREADS = 32
ADA = "ada@example.com"
LEASE_MS = 60_000
FOR_EVER = Service()

T = TypeVar("T")


@pytest.fixture
def users(valkey_server: Valkey, store: redis.Redis) -> Users:
    """The users of an empty store."""
    return Users(Storage(valkey_server.url, 5.0), Names(None), Sealer([]))


@pytest.fixture
def records(store: redis.Redis) -> Records:
    """What stands in that store."""
    return Records(store)


def numbers(shard: int, count: int) -> list[str]:
    """The first numbers of a shard."""
    draws = iter(range(count))
    generator = NumberGenerator(DIGITS, lambda _: next(draws))
    return [generator.draw(shard) for _ in range(count)]


def register(
    users: Users,
    address: str,
    candidates: Sequence[str],
    token: str = "t0ken",
    service: Service = FOR_EVER,
    lease_ms: int = LEASE_MS,
) -> Stored | None:
    """One call of the script; None when every candidate is taken."""
    draft = Draft(Address.parse(address), token, "en", service)
    keys = users.keys(service, draft.address)
    outcome = users.register(keys, draft, candidates, lease_ms=lease_ms)
    assert outcome is None or isinstance(outcome, Stored)
    return outcome


def all_at_once(work: Callable[[int], T]) -> list[T]:
    """What comes of the same work in many threads that begin together."""
    start = Barrier(THREADS)

    def begin(thread: int) -> T:
        start.wait()
        return work(thread)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


def snapshot(store: redis.Redis) -> dict[bytes, bytes | None]:
    """Everything in Redis, to compare with later."""
    return {key: store.dump(key) for key in store.scan_iter(count=1000)}


def test_a_number_is_taken_once_when_many_addresses_race_for_it(
    users: Users, records: Records, store: redis.Redis
) -> None:
    """All want the same numbers in the same order; everybody gets one, nobody another's."""
    addresses = records.addresses_in_shard(7, THREADS)
    candidates = numbers(7, THREADS + 8)
    outcomes = all_at_once(lambda thread: register(users, addresses[thread], candidates))
    taken = [outcome.registration.number for outcome in outcomes if outcome is not None]
    assert sorted(taken) == sorted(candidates[:THREADS])
    assert [records.number_of(address) for address in addresses] == taken
    assert contradictions(store) == []


def test_one_address_that_is_registered_by_many_at_once_ends_with_one_number(
    users: Users, records: Records, store: redis.Redis
) -> None:
    """Every registration replaces the one before it, with all its data."""
    candidates = numbers(records.keys(ADA).shard, 10 * THREADS)

    def register_ten_times(thread: int) -> list[Stored | None]:
        mine = candidates[10 * thread : 10 * thread + 10]
        return [register(users, ADA, [number], token=number) for number in mine]

    outcomes = [outcome for some in all_at_once(register_ten_times) for outcome in some]
    assert None not in outcomes
    assert kinds(store) == {"user": 1, "number": 1, "outbox": 1, "sender": 1}
    stored = records.of(ADA)
    assert stored is not None
    assert stored.token == stored.number
    assert contradictions(store) == []


def test_registrations_of_one_address_are_told_apart_by_when_they_were_created(
    users: Users, records: Records, store: redis.Redis
) -> None:
    """Also those of one millisecond: events, and the answers to resends, name a registration so."""
    service = Service(ttl_s=60)
    candidates = numbers(records.keys(ADA).shard, 10 * THREADS)

    def created_ms(thread: int) -> list[int]:
        mine = candidates[10 * thread : 10 * thread + 10]
        made = [there(register(users, ADA, [number], service=service)) for number in mine]
        return [each.registration.asked_for_ms for each in made]

    found = [each for some in all_at_once(created_ms) for each in some]
    assert len(set(found)) == len(found)
    record = there(users.find(records.keys(ADA).user_id))
    assert (record.created_ms, record.expires_ms) == (max(found), max(found) + 60_000)


def test_a_registration_that_was_made_before_the_clock_was_set_back_moves_no_other(
    users: Users, records: Records, store: redis.Redis
) -> None:
    """Only the milliseconds of a moment are told apart."""
    keys = records.keys(ADA)
    first, second = (numbers(keys.shard, 2)[place : place + 1] for place in (0, 1))
    before = there(register(users, ADA, first)).registration.asked_for_ms
    store.hset(keys.user, Field.CREATED_MS, before + 3_600_000)
    after = there(register(users, ADA, second)).registration.asked_for_ms
    assert before <= after < before + 60_000


def test_a_lease_is_taken_by_one_of_many(users: Users, records: Records) -> None:
    """One address, one sender: the others learn that they are not it."""
    candidates = numbers(records.keys(ADA).shard, THREADS)
    outcomes = all_at_once(lambda thread: register(users, ADA, [candidates[thread]]))
    assert [outcome.owner is not None for outcome in outcomes if outcome].count(True) == 1


def test_a_lost_script_cache_goes_unnoticed(users: Users, records: Records, store: redis.Redis) -> None:
    """SCRIPT FLUSH again and again while many register; a restart does the same."""
    candidates = numbers(records.keys(ADA).shard, 20 * THREADS)
    done = Event()

    def flush_until_done() -> int:
        flushes = 0
        while not done.is_set():
            store.script_flush()
            flushes += 1
        return flushes

    with ThreadPoolExecutor(1) as other:
        flushes = other.submit(flush_until_done)
        mine = [candidates[20 * thread : 20 * thread + 20] for thread in range(THREADS)]
        try:
            outcomes = all_at_once(lambda thread: [register(users, ADA, [number]) for number in mine[thread]])
        finally:
            done.set()
        assert flushes.result() > 10
    assert all(outcome is not None for some in outcomes for outcome in some)
    assert contradictions(store) == []


def test_where_every_candidate_is_taken_nothing_changes(
    users: Users, records: Records, store: redis.Redis
) -> None:
    """Neither for an address that is new nor for one that is registered."""
    newcomer, *holders = records.addresses_in_shard(7, 5)
    candidates = numbers(7, 4)
    for address, number in zip(holders, candidates, strict=True):
        register(users, address, [number], lease_ms=0)
    before = snapshot(store)
    assert register(users, newcomer, candidates) is None
    assert register(users, holders[0], candidates, token="another") is None
    assert snapshot(store) == before


def test_the_first_free_candidate_is_taken(users: Users, records: Records) -> None:
    """A long list costs no more numbers than a short one."""
    first, second = records.addresses_in_shard(7, 2)
    candidates = numbers(7, 130)
    register(users, first, candidates[:128])
    register(users, second, candidates[:130])
    assert [records.number_of(first), records.number_of(second)] == candidates[:2]


def test_registering_again_leaves_nothing_of_the_old_data(
    users: Users, records: Records, store: redis.Redis
) -> None:
    """Also none of what was written down about its mail."""
    old, new = numbers(records.keys(ADA).shard, 2)
    register(users, ADA, [old])
    user = records.keys(ADA).user
    fresh = store.hkeys(user)
    store.hset(
        user,
        mapping={Field.MAILED_MS: 1, Field.ERROR: "recipient 450", Field.ATTEMPTS: 3, Field.DELIVERY: "sent"},
    )
    register(users, ADA, [new])
    assert sorted(store.hkeys(user)) == sorted(fresh)
    assert store.hget(user, Field.DELIVERY) == b"pending"
    assert store.hget(user, Field.ATTEMPTS) == b"0"
    assert kinds(store)["number"] == 1


def test_a_registration_with_a_life_ends_whole(users: Users, records: Records, store: redis.Redis) -> None:
    """Record and number go in the same millisecond; the outbox entry is dropped when its turn comes."""
    (number,) = numbers(records.keys(ADA).shard, 1)
    register(users, ADA, [number], service=Service(ttl_s=1))
    keys = records.keys(ADA)
    digest = text(store.hget(keys.user, Field.NUMBER))
    assert store.pexpiretime(keys.user) == store.pexpiretime(keys.number_prefix + digest)
    wait_until(lambda: not kinds(store)["user"] and not kinds(store)["number"], 5, "both are gone")


def test_registering_again_without_a_life_lives_for_ever(
    users: Users, records: Records, store: redis.Redis
) -> None:
    """A TTL of the old record must not end the new one."""
    old, new = numbers(records.keys(ADA).shard, 2)
    register(users, ADA, [old], service=Service(ttl_s=50))
    register(users, ADA, [new])
    assert store.ttl(records.keys(ADA).user) == -1
    assert [store.ttl(key) for key in store.scan_iter("*:number:*")] == [-1]


def test_the_mail_is_due_when_the_lease_of_its_sender_ends(
    users: Users, records: Records, store: redis.Redis
) -> None:
    """If the process dies, another finds it due; until then it is nobody else's."""
    first, second = numbers(records.keys(ADA).shard, 2)
    keys = records.keys(ADA)
    outcome = register(users, ADA, [first], lease_ms=LEASE_MS)
    assert outcome is not None
    assert text(store.get(keys.sender)) == outcome.owner
    due = store.zscore(keys.outbox, keys.user_id)
    assert due == outcome.registration.asked_for_ms + LEASE_MS
    second_outcome = register(users, ADA, [second], lease_ms=LEASE_MS)
    assert second_outcome is not None
    assert second_outcome.owner is None
    assert text(store.get(keys.sender)) == outcome.owner
    assert abs((store.zscore(keys.outbox, keys.user_id) or 0) - due) <= 5


def test_where_no_mail_is_begun_it_is_due_at_once(users: Users, records: Records, store: redis.Redis) -> None:
    """The mail server is down: the lease stays free for whoever brings the mail back."""
    (number,) = numbers(records.keys(ADA).shard, 1)
    keys = records.keys(ADA)
    outcome = register(users, ADA, [number], lease_ms=0)
    assert outcome is not None
    assert outcome.owner is None
    assert not store.exists(keys.sender)
    assert store.zscore(keys.outbox, keys.user_id) == outcome.registration.asked_for_ms
