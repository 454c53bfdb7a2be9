"""Services of a file, from outside: whose key opens what."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import redis
import requests

from app.directory.directory import digest
from tests.api.conftest import API_KEYS, SHOP, Api, bearer
from tests.support.servers import Gunicorn

ACME, ACME_NEXT, CLUB = "key-of-acme", "next-key-of-acme", "key-of-the-club"

FILE = f"""
[acme]
keys = ["{digest(ACME)}", "next:{digest(ACME_NEXT).upper()}"]
name = "Acme"
client_limit = "3/hour"

[club]
keys = ["{digest(CLUB)}"]
name = "The club"
"""

NOBODY = "/api/users/" + "a" * 26

Serving = Callable[..., AbstractContextManager[Gunicorn]]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("services") / "services.toml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def beside_keys(serving: Serving, file: Path) -> Iterator[Gunicorn]:
    """The file beside API_KEYS."""
    with serving(SERVICES_FILE=str(file), API_KEYS=API_KEYS) as service:
        yield service


@pytest.fixture
def both(beside_keys: Gunicorn, store: redis.Redis) -> Gunicorn:
    return beside_keys


def status(service: Gunicorn, key: str, path: str = NOBODY) -> int:
    return requests.get(service.url + path, headers=bearer(key) if key else {}, timeout=20).status_code


def test_every_key_of_file_and_environment_opens_the_api(both: Gunicorn) -> None:
    """And nothing else does."""
    assert [status(both, key) for key in (ACME, ACME_NEXT, CLUB, SHOP)] == [404] * 4
    assert [status(both, key) for key in ("", "nobody's", digest(ACME), "acme")] == [401] * 4


def test_only_keys_of_the_environment_open_metrics(both: Gunicorn) -> None:
    """They tell of all services."""
    assert status(both, SHOP, "/metrics") == 200
    assert [status(both, key, "/metrics") for key in ("", ACME, CLUB)] == [401] * 3


def test_the_keys_of_a_service_are_counted_together(both: Gunicorn) -> None:
    """Its limit is its own: others go on."""
    assert [status(both, key) for key in (ACME, ACME_NEXT, ACME)] == [404] * 3
    assert [status(both, key) for key in (ACME, ACME_NEXT)] == [429] * 2
    assert [status(both, key) for key in (CLUB, SHOP)] == [404] * 2


def test_log_and_metrics_name_service_and_key(both: Gunicorn) -> None:
    """A bare key by its place."""
    for key in (ACME, ACME_NEXT, CLUB):
        status(both, key)
    lines = [json.loads(line) for line in both.log.splitlines() if '"event":"request"' in line]
    assert {"acme/1", "acme/next", "club/1"} <= {line["caller"] for line in lines}
    metrics = requests.get(f"{both.url}/metrics", headers=bearer(SHOP), timeout=20).text
    assert 'caller="acme/next"' in metrics
    assert digest(ACME) not in both.log + metrics


def test_beside_a_file_nobody_calls_without_a_key(serving: Serving, file: Path, store: redis.Redis) -> None:
    """Without API_KEYS the service of the environment is closed, and so is /metrics. Probes need no key."""
    with serving(SERVICES_FILE=str(file)) as service:
        assert [status(service, key) for key in ("", SHOP, CLUB)] == [401, 401, 404]
        assert [status(service, key, "/metrics") for key in ("", CLUB)] == [401, 401]
        assert status(service, "", "/healthz") == 200
        document = requests.get(f"{service.url}/openapi.json", timeout=20).json()
        assert document["security"] == [{"bearer": []}]
        answer = Api(service).register("ada@example.com")
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "open_to_everybody" not in service.log
