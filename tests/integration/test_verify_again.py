"""verify_number.lua with an Idempotency-Key: an answer that was lost is given again, and to nobody else."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import redis

from app.errors import SealBroken, StorageUnavailable, TooManyAttempts, VerificationFailed
from app.repositories.scripts import REPLAY_MS
from tests.api.conftest import at_once, wrong
from tests.support.people import Process, ada
from tests.support.servers import Valkey

Start = Callable[..., Process]
KEY = "attempt-1"


@pytest.fixture
def start(valkey_server: Valkey, store: redis.Redis) -> Iterator[Start]:
    """Starts processes on the same empty store."""
    started: list[Process] = []

    def begin(limit: int = 3, secrets: tuple[str, ...] = ("k" * 32,)) -> Process:
        process = Process(valkey_server.url, secrets, "i" * 32, limit=limit)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.close()


def failure(process: Process, number: str, key: str = "") -> VerificationFailed:
    with pytest.raises(VerificationFailed) as caught:
        process.verify(ada(), number, key)
    return caught.value


def test_the_same_request_gets_the_token_again(start: Start, store: redis.Redis) -> None:
    """For two minutes, sealed, at no cost; another key, none, or another number get nothing."""
    process = start()
    number = process.registered(ada()).registration.number
    assert [process.verify(ada(), number, KEY) for _ in range(3)] == ["t0ken"] * 3
    keys = process.keys(ada())
    assert REPLAY_MS - 60_000 < store.pttl(keys.verified) <= REPLAY_MS
    kept = store.get(keys.verified)
    assert isinstance(kept, bytes)
    assert b"t0ken" not in kept
    assert b"ada@" not in kept
    assert not store.exists(keys.user, keys.tries)
    assert failure(process, number, "attempt-2").members == {"tries_left": 2}
    assert failure(process, number).members == {"tries_left": 1}
    assert failure(process, wrong(number), KEY).members == {"tries_left": 0}
    with pytest.raises(TooManyAttempts):
        process.verify(ada(), number)
    assert process.verify(ada(), number, KEY) == "t0ken", "also where the budget is used up"
    store.delete(keys.verified)
    with pytest.raises(TooManyAttempts):
        process.verify(ada(), number, KEY)


def test_nobody_who_knows_the_key_searches_for_the_number(start: Start, store: redis.Redis) -> None:
    """Five other numbers end what was remembered; others' keys do not."""
    process = start(limit=0)
    number = process.registered(ada()).registration.number
    assert process.verify(ada(), number, KEY) == "t0ken"
    for other in range(1, 5):
        failure(process, wrong(number, other), KEY)
        failure(process, wrong(number, other), "another's")
    assert process.verify(ada(), number, KEY) == "t0ken"
    failure(process, wrong(number, 5), KEY)
    assert not store.exists(process.keys(ada()).verified)
    failure(process, number, KEY)


def test_what_is_remembered_is_guarded_as_a_number_is(start: Start, store: redis.Redis) -> None:
    """Where Redis refuses to count, right and other numbers fail alike."""
    process = start(limit=0)
    number = process.registered(ada()).registration.number
    assert process.verify(ada(), number, KEY) == "t0ken"
    store.config_set("maxmemory", 1)
    try:
        for each in (number, wrong(number)):
            with pytest.raises(StorageUnavailable) as caught:
                process.verify(ada(), each, KEY)
            assert caught.value.code == "OOM"
    finally:
        store.config_set("maxmemory", 0)
    assert process.verify(ada(), number, KEY) == "t0ken"


def test_only_a_success_is_remembered(start: Start, store: redis.Redis) -> None:
    """After a wrong number, the key is good for the right one."""
    process = start()
    number = process.registered(ada()).registration.number
    failure(process, wrong(number), KEY)
    assert not store.exists(process.keys(ada()).verified)
    assert process.verify(ada(), number, KEY) == "t0ken"


def test_a_new_registration_is_verified_for_itself(start: Start) -> None:
    """The old number still brings the old token to the old request, and the new one the new token."""
    process = start()
    old = process.registered(ada()).registration.number
    assert process.verify(ada(), old, KEY) == "t0ken"
    new = process.outcome(ada(), token="new").registration.number  # type: ignore[union-attr]
    assert process.verify(ada(), old, KEY) == "t0ken"
    assert process.verify(ada(), new, KEY) == "new"
    failure(process, old, KEY)


def test_an_erasure_leaves_nothing_to_hand_out(start: Start, store: redis.Redis) -> None:
    """What was handed out for an earlier number goes with the record."""
    process = start()
    number = process.registered(ada()).registration.number
    process.verify(ada(), number, KEY)
    process.registered(ada())
    assert process.users.erase(process.keys(ada()).user_id)
    assert not store.exists(process.keys(ada()).verified)
    failure(process, number, KEY)


def test_an_erasure_also_finds_what_was_handed_out_last(start: Start, store: redis.Redis) -> None:
    """The number is used, its record gone, and its token could be had again for two minutes."""
    process = start()
    number = process.registered(ada()).registration.number
    process.verify(ada(), number, KEY)
    assert process.users.erase(process.keys(ada()).user_id)
    assert not store.exists(process.keys(ada()).verified)
    failure(process, number, KEY)
    assert not process.users.erase(process.keys(ada()).user_id)


def test_tries_left_are_the_same_for_known_and_unknown_addresses(start: Start, store: redis.Redis) -> None:
    """Down to none; without a limit nothing is said."""
    process = start()
    number = process.registered(ada()).registration.number
    known = [failure(process, wrong(number)).members for _ in range(3)]
    store.flushall()
    unknown = [failure(process, wrong(number)).members for _ in range(3)]
    assert known == unknown == [{"tries_left": left} for left in (2, 1, 0)]
    assert not failure(start(limit=0), wrong(number)).members


def test_many_at_once_with_one_key_all_get_the_token(start: Start, store: redis.Redis) -> None:
    """And with keys of their own, one of them; also while the script cache is lost again and again."""
    process = start(limit=0)
    for keys, happy in ((["one"] * 32, 32), ([f"key-{n}" for n in range(32)], 1)):
        number = process.registered(ada()).registration.number
        left = iter(keys)

        def ask(number: str = number, left: Iterator[str] = left) -> str:
            key = next(left)
            store.script_flush()
            try:
                return process.verify(ada(), number, key)
            except VerificationFailed:
                return "failed"

        assert Counter(at_once(32, ask))["t0ken"] == happy


def test_what_is_sealed_with_a_key_that_we_lack_is_told_so(start: Start) -> None:
    """During a rotation, a process that lacks the new key."""
    new, old = start(secrets=("n" * 32, "k" * 32)), start()
    number = new.registered(ada()).registration.number
    assert new.verify(ada(), number, KEY) == "t0ken"
    with pytest.raises(SealBroken):
        old.verify(ada(), number, KEY)
