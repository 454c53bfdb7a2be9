"""A Redis that is silent, refuses writes or forgets: 503, nothing half done, and recovery by itself."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import redis
import requests

from tests.support.faults.redis import (
    Fault,
    another_password,
    cannot_save,
    everything,
    out_of_memory,
    read_only,
    too_few_replicas,
)
from tests.support.problems import assert_problem
from tests.support.records import Records
from tests.support.scan import contradictions, kinds
from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn, settings_for
from tests.support.stores import own_valkey
from tests.support.waiting import wait_until

valkey_server = own_valkey("module")  # to be mistreated

ADA, BOB = "ada@example.com", "bob@example.com"


@pytest.fixture(scope="module")
def shared_service(
    tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]
) -> Iterator[Gunicorn]:
    with gunicorn(tmp_path_factory.mktemp("service"), shared_environment) as server:
        yield server


@pytest.fixture
def service(shared_service: Gunicorn, store: redis.Redis) -> Gunicorn:
    """One for all: it has to recover from every fault."""
    return shared_service


FAULTS: dict[str, tuple[Fault, str]] = {
    "READONLY": (read_only, "READONLY"),
    "MISCONF": (cannot_save, "MISCONF"),
    "OOM": (out_of_memory, "OOM"),
    "NOREPLICAS": (too_few_replicas, "NOREPLICAS"),
    "NOAUTH": (another_password, "NOAUTH"),
}
"""Each with what the log says of it."""


@pytest.mark.parametrize(("fault", "told"), FAULTS.values(), ids=FAULTS)
def test_a_redis_that_refuses_writes_is_a_503_and_changes_nothing(
    service: Gunicorn, valkey_server: Valkey, store: redis.Redis, fault: Fault, told: str
) -> None:
    """Neither for a new address nor for one that would lose its old data; then all is well again. Only the
    log says why."""
    assert service.register(ADA).status_code == 201
    before = everything(store, "{*")
    with fault(valkey_server, store):
        for address in (ADA, BOB):
            answer = service.register(address)
            assert_problem(answer, 503, "storage-unavailable")
            assert answer.headers["Retry-After"].isdigit()
            assert told not in answer.text
        assert f'"error":"{told}' in service.log
        assert requests.get(f"{service.url}/readyz", timeout=20).status_code == 503
        assert everything(store, "{*") == before
    for address in (ADA, BOB):
        assert service.register(address).status_code == 201
    assert requests.get(f"{service.url}/readyz", timeout=20).status_code == 200
    assert contradictions(store) == []


def test_a_silent_redis_is_a_503_within_three_seconds(
    service: Gunicorn, valkey_server: Valkey, store: redis.Redis
) -> None:
    """Many at once do not wait for each other; when it answers again, all is well by itself."""
    assert service.register(ADA).status_code == 201

    def timed(request: Callable[[], requests.Response]) -> tuple[requests.Response, float]:
        began = time.monotonic()
        return request(), time.monotonic() - began

    with valkey_server.frozen(), ThreadPoolExecutor(20) as pool:
        answers = [
            pool.submit(timed, partial(service.register, f"person{one}@example.com")) for one in range(19)
        ]
        ready, ready_s = timed(lambda: requests.get(f"{service.url}/readyz", timeout=20))
        for answer, seconds in (future.result() for future in answers):
            assert_problem(answer, 503, "storage-unavailable")
            assert answer.headers["Retry-After"].isdigit()
            assert seconds < 10  # one time-out of 2 s, not those of nineteen after one another
        assert ready.status_code == 503
        assert ready_s < 10
        assert requests.get(f"{service.url}/healthz", timeout=20).status_code == 200
    wait_until(lambda: service.register(ADA).status_code == 201, 30, "registrations go on")
    assert contradictions(store) == []


def test_a_lost_script_cache_costs_nobody_anything(service: Gunicorn, store: redis.Redis) -> None:
    """SCRIPT FLUSH between registrations, as a restart does it."""
    for address in (ADA, BOB, ADA):
        store.script_flush()
        assert service.register(address).status_code == 201
    assert contradictions(store) == []


def test_a_redis_that_was_emptied_takes_registrations_again(service: Gunicorn, store: redis.Redis) -> None:
    """FLUSHALL is somebody's mistake, and no reason to stop."""
    assert service.register(ADA).status_code == 201
    store.flushall()
    assert service.register(ADA).status_code == 201
    assert kinds(store)["user"] == kinds(store)["number"] == 1


def test_a_service_that_starts_before_its_redis_serves_as_soon_as_it_is_there(
    tmp_path: Path, valkey: Valkey, mailbox: MailServer
) -> None:
    """Nobody has to start things in order."""
    valkey.kill()
    with gunicorn(tmp_path, settings_for(valkey, mailbox)) as service:
        assert_problem(service.register(ADA), 503, "storage-unavailable")
        assert "redis_away_at_start" in service.log
        valkey.start()
        wait_until(lambda: service.register(ADA).status_code == 201, 30, "the service serves")
        with valkey.client() as client:
            assert Records(client).of(ADA) is not None
