"""Doctor and metrics where Redis is more than one server."""

from collections.abc import Iterator

import pytest
import redis

from app.cli.doctor import store
from app.cli.doctor.findings import Level
from app.config import Settings
from app.repositories.census import Census
from app.repositories.keys import PAIRS, Field, keys_of
from app.repositories.records import Sealer
from app.storage.storage import Storage
from tests.support.servers import free_port
from tests.support.topologies import Cluster, SentinelPair

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("cluster"), replicas=False)
    yield found
    found.stop()


def test_the_doctor_examines_every_master_of_a_cluster(cluster: Cluster) -> None:
    """All is well; then one of the three keeps nothing, and is found."""
    settings = Settings(redis_url=cluster.url)
    bad = [f for f in store.examine(settings) if f.level in (Level.WARNING, Level.PROBLEM)]
    assert bad == []
    with cluster.masters[2].client() as client:
        client.config_set("appendonly", "no")
    (found,) = [f for f in store.examine(settings) if f.level in (Level.WARNING, Level.PROBLEM)]
    assert "Nothing is persisted" in found.says


def test_the_census_counts_a_whole_cluster(cluster: Cluster) -> None:
    """Outbox, records and numbers of all masters."""
    cluster.flush()
    client: redis.RedisCluster = cluster.client()
    every = [keys_of(f"{PAIRS[7 * number]}{number:a>24}") for number in range(60)]
    for number, keys in enumerate(every):
        client.hset(keys.user, mapping={Field.CREATED_MS: 1_000_000 + number})
        client.set(f"{keys.number_prefix}{number:016}", keys.user_id)
        client.zadd(keys.outbox, {keys.user_id: number})
    census = Census(Storage(cluster.url, 2.0), Sealer([]))
    owed = census.owed()
    assert (owed.depth, owed.oldest_ms) == (60, 1_000_000)
    assert census.numbers_by_shard().total() == 60
    assert census.records_at_most() == (120 + len({keys.shard for keys in every})) // 2


def test_the_memory_of_the_fullest_master_is_told(cluster: Cluster) -> None:
    """One that is full refuses a third of all registrations."""
    census = Census(Storage(cluster.url, 2.0), Sealer([]))
    assert census.memory_used() is None
    for master, limit in zip(cluster.masters, ("1gb", "0", "8mb"), strict=True):
        with master.client() as client:
            client.config_set("maxmemory", limit)
    assert 0.1 < (census.memory_used() or 0) < 1


@pytest.mark.system
def test_the_doctor_finds_the_master_through_the_sentinels(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """All is well; a service that no sentinel knows is found."""
    pair = SentinelPair(tmp_path_factory.mktemp("sentinels"))
    try:
        well = [f.level for f in store.examine(Settings(redis_url=pair.url))]
        wrong = list(store.examine(Settings(redis_url=pair.url.replace(pair.SERVICE, "other"))))
    finally:
        pair.stop()
    assert set(well) == {Level.OK}
    assert "No sentinel names a master" in wrong[0].says


def test_sentinels_that_are_not_there_are_found() -> None:
    """With a look at hosts and service name as the cure."""
    (found,) = store.examine(Settings(redis_url=f"redis+sentinel://127.0.0.1:{free_port()}/users"))
    assert "No sentinel names a master" in found.says
    assert "SENTINEL MASTERS" in found.cure
