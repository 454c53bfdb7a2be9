"""A cluster and a pair watched by sentinels, each started once for all tests here."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.authority import Authority
from tests.support.servers import Valkey, stopping
from tests.support.topologies import Cluster, SentinelPair
from tests.topologies import places
from tests.topologies.places import Place, RedisServer

PLACES = [
    pytest.param("server", marks=pytest.mark.slow),  # what most other tests run on
    "sentinels",
    "cluster",
    pytest.param("redis-server", marks=pytest.mark.system),
    pytest.param("tls", marks=pytest.mark.system),
]


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three masters with a replica each."""
    with stopping(Cluster(tmp_path_factory.mktemp("cluster"))) as found:
        yield found


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelPair]:
    """A master, its replica and three sentinels."""
    with stopping(SentinelPair(tmp_path_factory.mktemp("pair"))) as found:
        yield found


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Every form of storage in turn, empty, with the documented ACL user."""
    if request.param == "cluster":
        found = places.clustered(request.getfixturevalue("cluster"))
    elif request.param == "sentinels":
        found = places.sentinels(request.getfixturevalue("pair"))
    else:
        kinds: dict[str, Callable[[], Valkey | RedisServer]] = {
            "server": lambda: Valkey(tmp_path / "server", save=""),
            "redis-server": lambda: RedisServer(tmp_path / "server"),
            "tls": lambda: RedisServer(tmp_path / "server", Authority(tmp_path)),
        }
        with stopping(kinds[request.param]()) as server:
            yield places.one(server)
        return
    found.flush()
    yield found
