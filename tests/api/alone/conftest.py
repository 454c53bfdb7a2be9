"""Tests that want a Redis into which nobody else looks."""

from collections.abc import Iterator

import pytest

from tests.support.servers import Valkey, stopping


@pytest.fixture(scope="module")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One of a module's own: the relay of a service that other tests share would mail what is left here."""
    with stopping(Valkey(tmp_path_factory.mktemp("valkey"), save="")) as server:
        yield server
