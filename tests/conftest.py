"""Fixtures: one Valkey for the session, emptied for each test; a mail server and gunicorn where asked for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings

from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn, stopping

settings.register_profile("cedula", deadline=None)  # a busy machine is no wrong answer
settings.load_profile("cedula")

WITHOUT_TTL = ("user", "number", "outbox", "keycheck")
"""The kinds of key that may live for ever; whatever else has no TTL is a leak."""


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with stopping(Valkey(tmp_path_factory.mktemp("valkey"), save="")) as server:
        yield server


@pytest.fixture
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey of the test's own, to be mistreated. What it acknowledges it has written down.

    A module whose tests all want one has a fixture `valkey_server` that returns it: then `store`,
    `environment` and `service` are about that one.
    """
    folder = tmp_path_factory.mktemp("valkey")
    with stopping(Valkey(folder, save="", appendonly="yes", appendfsync="always")) as server:
        yield server


@pytest.fixture
def store(valkey_server: Valkey) -> Iterator[redis.Redis]:
    """An empty store; afterwards every key must have a TTL, or be of a kind that needs none."""
    client = valkey_server.client()
    client.flushall()
    yield client
    leaked = [
        key.decode()
        for key in client.scan_iter(count=1000)
        if key.decode().split(":")[1] not in WITHOUT_TTL and client.ttl(key) == -1
    ]
    client.close()
    assert not leaked, f"keys without a TTL: {leaked}"


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    with stopping(MailServer()) as server:
        yield server


@pytest.fixture
def environment(valkey_server: Valkey, store: redis.Redis, mail_server: MailServer) -> dict[str, str]:
    """What the service is told: where the servers are, and nothing else."""
    return {
        "REDIS_URL": valkey_server.url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(mail_server.port),
        "FLASK_SKIP_DOTENV": "1",  # a developer's .env
    }


@pytest.fixture
def service(tmp_path: Path, environment: dict[str, str]) -> Iterator[Gunicorn]:
    """The service under gunicorn with its own configuration."""
    with gunicorn(tmp_path, environment) as server:
        yield server
