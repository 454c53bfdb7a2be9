"""Guesses are counted before they are compared: a Redis that takes no count gives no answer."""

import secrets
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import requests

from app.errors import StorageUnavailable, TooManyAttempts, VerificationFailed
from tests.api.conftest import Api, wrong
from tests.support.faults.redis import REFUSALS, Fault, everything
from tests.support.people import Process, ada
from tests.support.scan import contradictions, kinds
from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn
from tests.support.stores import own_valkey

valkey_server = own_valkey("module")  # to be mistreated

GUESSES = 2000


@pytest.fixture(scope="module")
def limited_service(
    tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]
) -> Iterator[Gunicorn]:
    with gunicorn(tmp_path_factory.mktemp("limited"), shared_environment) as server:
        yield server


@pytest.fixture(scope="module")
def unlimited_service(
    tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]
) -> Iterator[Gunicorn]:
    with gunicorn(tmp_path_factory.mktemp("unlimited"), shared_environment | {"VERIFY_LIMIT": ""}) as server:
        yield server


def verdicts(api: Api, asked: list[tuple[str, str]]) -> Counter[tuple[int, str]]:
    """What came of handing in these numbers for these addresses: status and type of the problem."""

    def ask(one: tuple[str, str]) -> tuple[int, str]:
        answer = api.verify(*one)
        return answer.status_code, str(answer.json().get("type"))

    with ThreadPoolExecutor(16) as pool:
        return Counter(pool.map(ask, asked))


REFUSED = (503, "/problems/storage-unavailable")


@pytest.mark.parametrize("kind", ["limited_service", "unlimited_service"], ids=["limit", "no limit"])
@pytest.mark.parametrize("fault", REFUSALS.values(), ids=REFUSALS)
def test_where_redis_refuses_the_count_no_number_is_told_from_another(
    request: pytest.FixtureRequest,
    mailbox: MailServer,
    valkey_server: Valkey,
    store: redis.Redis,
    fault: Fault,
    kind: str,
) -> None:
    """Right and wrong, of a known and of an unknown address: 503. Then the right one is taken, and had cost
    nothing."""
    api = Api(request.getfixturevalue(kind), mailbox)
    number = api.registered("ada@example.com")
    before = everything(store, "{*")
    with fault(valkey_server, store):
        asked = [
            (address, guess)
            for address in ("ada@example.com", "nobody@example.com")
            for guess in (number, wrong(number))
        ]
        assert verdicts(api, asked * 5) == {REFUSED: 20}
        assert everything(store, "{*") == before
    assert api.verify("ada@example.com", number).status_code == 200
    assert not kinds(store) - Counter({"keycheck": 1, "relay": 1, "ready": 1, "sends": 1, "mailbox": 1})


def test_thousands_of_guesses_at_a_full_redis_learn_nothing(
    limited_service: Gunicorn, mailbox: MailServer, store: redis.Redis, request: pytest.FixtureRequest
) -> None:
    """An outsider fills Redis with registrations of large tokens, then guesses, and the right number is among
    the guesses."""
    api = Api(limited_service, mailbox)
    number = api.registered("ada@example.com", "the token")
    store.config_set("maxmemory-policy", "noeviction")
    request.addfinalizer(lambda: store.config_set("maxmemory", "0"))
    store.config_set("maxmemory", str(store.info("memory")["used_memory"] + 1_000_000))

    def fill(turn: int) -> int:
        body = secrets.token_urlsafe(3000)
        return api.register(
            f"filler{turn}@example.com", body, headers={"Prefer": "respond-async"}
        ).status_code

    filled = 0
    while 503 not in (statuses := [fill(turn) for turn in range(filled, filled + 50)]):
        assert set(statuses) == {202}
        filled += 50
        assert filled < 5000
    guesses = [wrong(number, other) for other in range(1, GUESSES)]
    guesses.insert(GUESSES // 2, number)
    # What the mails leave behind makes room now and then: then a guess is counted, and five are too many.
    found = verdicts(api, [("ada@example.com", guess) for guess in guesses])
    assert not [status for status, _ in found if status == 200]
    assert found[(403, "/problems/verification-failed")] <= 5
    assert contradictions(store) == []


def test_a_right_number_costs_no_try(valkey_server: Valkey, store: redis.Redis) -> None:
    """Neither the first of a window nor a later one; the window ends when it would have."""
    process = Process(valkey_server.url)
    number = process.registered(ada()).registration.number
    tries = process.keys(ada()).tries
    for count in (1, 2):
        with pytest.raises(VerificationFailed):
            process.verify(ada(), wrong(number))
        assert store.get(tries) == str(count).encode()
    store.pexpire(tries, 600_000)
    process.verify(ada(), number)
    assert store.get(tries) == b"2"
    assert 590_000 < store.pttl(tries) <= 600_000
    store.delete(tries)
    number = process.registered(ada()).registration.number
    process.verify(ada(), number)
    assert not store.exists(tries)
    process.close()


def test_without_a_limit_nothing_is_left_of_a_count(valkey_server: Valkey, store: redis.Redis) -> None:
    """It is made all the same, since Redis may refuse it."""
    process = Process(valkey_server.url, limit=0)
    number = process.registered(ada()).registration.number
    for guess in (wrong(number), number, number):
        try:
            process.verify(ada(), guess)
        except VerificationFailed:
            continue
    assert kinds(store)["tries"] == 0
    process.close()


def test_a_limit_that_was_taken_away_leaves_the_count_as_it_was(
    valkey_server: Valkey, store: redis.Redis
) -> None:
    """A counter of before goes on to its end, and does not live for ever."""
    process = Process(valkey_server.url)
    number = process.registered(ada()).registration.number
    tries = process.keys(ada()).tries
    store.set(tries, 3, px=60_000)
    without = Process(valkey_server.url, limit=0)
    with pytest.raises(VerificationFailed):
        without.verify(ada(), wrong(number))
    assert store.get(tries) == b"3"
    assert 0 < store.pttl(tries) <= 60_000
    process.close()
    without.close()


@pytest.mark.parametrize("fault", REFUSALS.values(), ids=REFUSALS)
def test_a_used_up_budget_is_told_whatever_redis_refuses(
    valkey_server: Valkey, store: redis.Redis, fault: Fault
) -> None:
    """Nothing is counted for it and nothing compared."""
    process = Process(valkey_server.url)
    number = process.registered(ada()).registration.number
    for _ in range(process.limit):
        with pytest.raises(VerificationFailed):
            process.verify(ada(), wrong(number))
    with fault(valkey_server, store):
        for guess in (number, wrong(number)):
            with pytest.raises(TooManyAttempts):
                process.verify(ada(), guess)
        with pytest.raises(StorageUnavailable):
            process.registered(ada())
    process.close()


def test_the_service_is_well_again_when_redis_is(
    limited_service: Gunicorn, mailbox: MailServer, valkey_server: Valkey, store: redis.Redis
) -> None:
    """Registering, handing in and erasing, each refused and then done."""
    api = Api(limited_service, mailbox)
    number = api.registered("ada@example.com")
    user_id = api.register("bob@example.com").json()["id"]
    calls = (
        lambda: api.register("eve@example.com"),
        lambda: api.verify("ada@example.com", number),
        lambda: api.call("DELETE", f"/api/users/{user_id}"),
    )

    def statuses() -> list[int]:
        found: list[requests.Response] = [call() for call in calls]
        return [answer.status_code for answer in found]

    with REFUSALS["NOREPLICAS"](valkey_server, store):
        assert statuses() == [503, 503, 503]
    assert statuses() == [201, 200, 204]
