"""Fixtures: one Valkey for the session, emptied for each test; a mail server and gunicorn where asked for."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from hypothesis import settings

from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn, settings_for, stopping
from tests.support.stores import own_valkey

settings.register_profile("cedula", deadline=None)  # a busy machine is no wrong answer
settings.load_profile("cedula")

WITHOUT_TTL = ("user", "number", "outbox", "keycheck")
"""The kinds of key that may live for ever; whatever else has no TTL is a leak."""


valkey_server = own_valkey("session")


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
    client.flushall()  # a service that starts next may have other keys
    client.close()
    assert not leaked, f"keys without a TTL: {leaked}"


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    with stopping(MailServer()) as server:
        yield server


@pytest.fixture
def environment(valkey_server: Valkey, store: redis.Redis, mail_server: MailServer) -> dict[str, str]:
    return settings_for(valkey_server, mail_server)


@pytest.fixture(scope="module")
def mailbox() -> Iterator[MailServer]:
    """One mail server for a module. It keeps the mails of all its tests: each looks for its own."""
    with stopping(MailServer()) as server:
        yield server


@pytest.fixture(scope="module")
def shared_environment(valkey_server: Valkey, mailbox: MailServer) -> dict[str, str]:
    """For services that the tests of a module share. A start costs a second of CPU; who needs no fresh one
    takes a shared one, and `store`, which empties Redis under it."""
    with closing(valkey_server.client()) as client:
        client.flushall()  # a module before may have used other keys
    return settings_for(valkey_server, mailbox)


@pytest.fixture
def service(tmp_path: Path, environment: dict[str, str]) -> Iterator[Gunicorn]:
    """The service under gunicorn with its own configuration."""
    with gunicorn(tmp_path, environment) as server:
        yield server
