"""verify_number.lua and erase_user.lua on a real Valkey: one decision, whoever races for it."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import redis

from app.domain.address import Address
from app.domain.number import NumberGenerator
from app.domain.registration import Delivery, Draft, Registered, Stored
from app.domain.service import Budget, Service
from app.errors import TooManyAttempts, VerificationFailed
from app.repositories.keys import Field, Names
from app.repositories.records import Sealer
from app.repositories.scripts import WRONG_IN_A_ROW
from app.repositories.users import Users
from app.storage.storage import Storage
from tests.api.conftest import at_once, race, wrong
from tests.support.people import DIGITS, Process, age_mark
from tests.support.scan import contradictions, kinds
from tests.support.servers import Valkey
from tests.support.values import there

ADA = Address.parse("ada@example.com")
THREADS = 64
FOR_EVER = Service()


@pytest.fixture
def users(valkey_server: Valkey, store: redis.Redis) -> Iterator[Users]:
    client = Storage(valkey_server.url, 5.0)
    yield Users(client, Names(None), Sealer([]))
    client.close()


def limited(amount: int) -> Service:
    """A service that allows so many wrong numbers in 15 minutes."""
    return Service(verify_limit=Budget(amount, 900))


def register(users: Users, token: str = "t0ken", service: Service = FOR_EVER) -> str:
    """The number that was given."""
    keys = users.keys(service, ADA)
    candidates = NumberGenerator(DIGITS).draw_distinct(keys.shard, 4)
    stored = users.register(keys, Draft(ADA, token, "en", service), candidates, lease_ms=0)
    assert isinstance(stored, Stored)
    return stored.registration.number


def verdict(users: Users, number: str, service: Service = FOR_EVER) -> str:
    try:
        return users.verify(service, ADA, number).contents.token
    except (VerificationFailed, TooManyAttempts) as error:
        return type(error).__name__


def test_one_of_many_gets_the_token_and_nothing_is_left(users: Users, store: redis.Redis) -> None:
    """Record, number and outbox entry go with the token."""
    number = register(users)
    verdicts = at_once(THREADS, lambda: verdict(users, number))
    assert Counter(verdicts) == {"t0ken": 1, "VerificationFailed": THREADS - 1}
    assert not kinds(store) - Counter(keycheck=1)


def test_either_the_token_is_handed_out_or_the_user_is_erased(users: Users, store: redis.Redis) -> None:
    """Of one hand-in and many erasures, exactly one finds the registration."""
    for _ in range(20):
        number, user_id = register(users), users.keys(FOR_EVER, ADA).user_id

        def hand_in(number: str = number) -> bool:
            return verdict(users, number) == "t0ken"

        def erase(user_id: str = user_id) -> bool:
            return users.erase(user_id)

        assert sum(race([erase] * 3 + [hand_in] + [erase] * 4)) == 1
        assert not kinds(store)


def test_a_replaced_number_never_brings_a_token(users: Users, store: redis.Redis) -> None:
    """Hand-ins race with a registration: the old token before it, the new one after it, never mixed."""
    for turn in range(20):
        old = register(users, f"old {turn}")

        def hand_in(old: str = old) -> str:
            return verdict(users, old)

        def replace(turn: int = turn) -> str:
            return register(users, f"new {turn}")

        outcomes = race([hand_in] * 3 + [replace] + [hand_in] * 4)
        tokens = [found for found in outcomes if found.startswith("old")]
        assert len(tokens) <= 1
        assert not any(found.startswith("new") for found in outcomes)
        (new,) = [found for found in outcomes if found.isdigit()]
        assert verdict(users, new) == f"new {turn}"
        assert not kinds(store)


def test_a_budget_is_never_overdrawn(users: Users, store: redis.Redis) -> None:
    """So many wrong numbers and not one more, however many ask at once."""
    number = register(users)
    verdicts = at_once(THREADS, lambda: verdict(users, wrong(number), limited(5)))
    assert Counter(verdicts) == {"VerificationFailed": 5, "TooManyAttempts": THREADS - 5}
    (tries,) = store.scan_iter("*:tries:*")
    assert 890_000 < store.pttl(tries) <= 900_000


def test_a_hundred_tries_at_once_are_counted_one_by_one(users: Users, store: redis.Redis) -> None:
    """98 wrong numbers and twice the right one: one token, and every try but that one costs one."""
    number = register(users)
    guesses = [wrong(number)] * 49 + [number] * 2 + [wrong(number, 2)] * 49
    verdicts = race([partial(verdict, users, guess, limited(1000)) for guess in guesses])
    assert Counter(verdicts) == {"t0ken": 1, "VerificationFailed": 99}
    (tries,) = store.scan_iter("*:tries:*")
    assert store.get(tries) == b"99"
    assert Counter(at_once(100, lambda: verdict(users, number, limited(150)))) == {
        "VerificationFailed": 51,
        "TooManyAttempts": 49,
    }
    assert store.get(tries) == b"150"


def test_the_right_number_races_with_a_registration_and_an_erasure(users: Users, store: redis.Redis) -> None:
    """Whoever comes first: the old token comes at most once, the new one never, and nothing is left half."""
    for turn in range(30):
        old, user_id = register(users, f"old {turn}"), users.keys(FOR_EVER, ADA).user_id
        works: list[Callable[[], object]] = [
            partial(verdict, users, old),
            partial(register, users, f"new {turn}"),
            partial(users.erase, user_id),
        ]
        found = race(works[turn % 3 :] + works[: turn % 3] + works[:1])
        tokens = [each for each in found if str(each).startswith(("old", "new"))]
        assert tokens in ([], [f"old {turn}"])
        assert contradictions(store) == []
        assert kinds(store)["user"] == kinds(store)["number"] <= 1
        store.flushall()


def test_the_hundredth_of_many_wrong_numbers_at_once_erases(users: Users, store: redis.Redis) -> None:
    """Counted in the script: 99 from many clients leave it, the next does not."""
    number = register(users)
    for _ in range(3):
        at_once(33, lambda: verdict(users, wrong(number)))
    (user,) = store.scan_iter("*:user:*")
    assert int(store.hget(user, Field.WRONG) or 0) == WRONG_IN_A_ROW - 1
    assert contradictions(store) == []
    at_once(2, lambda: verdict(users, wrong(number)))
    assert not kinds(store)


def test_a_wrong_number_does_not_lengthen_a_life(users: Users, store: redis.Redis) -> None:
    """Counting writes into the record; its end stays."""
    number = register(users, service=Service(ttl_s=60))
    (user,) = store.scan_iter("*:user:*")
    ends = store.pexpiretime(user)
    assert verdict(users, wrong(number)) == "VerificationFailed"
    assert store.pexpiretime(user) == ends


def test_a_promise_to_a_repetition_races_with_a_refusal(valkey_server: Valkey, store: redis.Redis) -> None:
    """Either the promise comes first, and the record stays and says that the mail failed; or the erasure, and
    the repetition is carried out."""
    process = Process(valkey_server.url, limit=0)
    promised = 0
    for turn in range(40):
        stored = process.registered(ADA, key=f"key {turn}")
        registration = stored.registration
        age_mark(store, 60)

        settle, owner = process.outbox.settle, there(stored.owner)
        works: list[Callable[[], object]] = [
            partial(settle, registration.user_id, registration.mail_id, owner, Delivery.REFUSED),
            partial(process.outcome, ADA, key=f"key {turn}"),
        ]
        _, repeated = race(works)
        found = process.users.find(registration.user_id)
        assert found is not None
        if isinstance(repeated, Registered):
            promised += 1
            assert (found.delivery, found.created_ms) == (Delivery.FAILED, registration.asked_for_ms)
        else:
            assert found.delivery is Delivery.PENDING
        assert contradictions(store) == []
        store.flushall()
    assert promised > 0
    process.close()


def test_a_lost_script_cache_is_filled_again(users: Users, store: redis.Redis) -> None:
    """SCRIPT FLUSH, as after a restart: the call is repeated once, and decides once."""
    number = register(users)
    store.script_flush()
    assert verdict(users, wrong(number), limited(5)) == "VerificationFailed"
    (tries,) = store.scan_iter("*:tries:*")
    assert store.get(tries) == b"1"
    store.script_flush()
    assert verdict(users, number) == "t0ken"
    register(users)
    store.script_flush()
    assert users.erase(users.keys(FOR_EVER, ADA).user_id)
    store.script_flush()
    assert not users.erase(users.keys(FOR_EVER, ADA).user_id)


def test_the_caches_lost_under_a_hundred_calls_change_nothing(users: Users, store: redis.Redis) -> None:
    """SCRIPT FLUSH in between of racing calls: one token all the same."""
    number = register(users)

    def ask() -> str:
        store.script_flush()
        return verdict(users, number)

    assert Counter(at_once(32, ask)) == {"t0ken": 1, "VerificationFailed": 31}


def test_scripts_declare_their_slot(users: Users, store: redis.Redis) -> None:
    """Every key that a hand-in or an erasure leaves behind carries the shard of the address."""
    tag = users.keys(FOR_EVER, ADA).tag.encode()
    number = register(users)
    verdict(users, wrong(number), limited(5))
    assert all(key.startswith(tag) for key in store.scan_iter("*"))
    users.erase(users.keys(FOR_EVER, ADA).user_id)
    assert [key.split(b":")[1] for key in store.scan_iter("*")] == [b"tries"]
