"""A process of a service that wants events, and a person."""

from collections.abc import Iterator

import pytest
import redis

from tests.support.people import Process, ada
from tests.support.scan import contradictions
from tests.support.servers import Valkey
from tests.support.telling import Person


@pytest.fixture
def here(valkey_server: Valkey, store: redis.Redis) -> Iterator[Process]:
    """A process of a service that wants events."""
    process = Process(valkey_server.url, ("k" * 32,), "i" * 32, limit=0, listens=True)
    yield process
    process.close()


@pytest.fixture
def person(here: Process, store: redis.Redis) -> Iterator[Person]:
    """Ada. Whatever a test does to her, what Redis holds fits together afterwards."""
    yield Person(here, store, ada())
    assert contradictions(store) == []
