"""The map of a cluster: read in the background by a thread that is watched."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from app.errors import StorageUnavailable
from app.repositories.scripts import HoldLock
from app.storage.storage import Storage
from tests.support.servers import free_port, stopping
from tests.support.topologies import Cluster
from tests.support.waiting import wait_until

TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three masters."""
    with stopping(Cluster(tmp_path_factory.mktemp("nodes"), replicas=False)) as found:
        yield found


@pytest.fixture
def storage(nodes: Cluster) -> Iterator[Storage]:
    found = Storage(nodes.url, TIMEOUT_S)
    yield found
    found.close()


def hold(storage: Storage, shard: int) -> int:
    return int(storage.run(HoldLock(lock=f"{{{shard:03}}}:lock", owner="owner", ttl_ms=60_000)))


def test_the_thread_that_reads_the_map_is_watched(storage: Storage) -> None:
    """It can be asked how it is: well before it is needed, while it works, and at rest."""
    thread = storage.threads[-1]
    assert (thread.name, thread.fault) == ("cluster-map", "")
    assert {hold(storage, shard) for shard in range(100)} == {1}
    assert (thread.alive, thread.fault, thread.deaths) == (True, "", 0)


def test_a_cluster_that_is_away_is_told_in_time_and_by_code() -> None:
    """The thread stays well: it is not its fault."""
    storage = Storage(f"redis+cluster://127.0.0.1:{free_port()}", TIMEOUT_S)
    with pytest.raises(StorageUnavailable) as unavailable:
        hold(storage, 7)
    assert unavailable.value.code == "no-node"
    thread = storage.threads[-1]
    assert (thread.alive, thread.fault) == (True, "")
    storage.close()


def test_a_closed_store_opens_again(nodes: Cluster) -> None:
    """With a thread of its own, also before it had a map."""
    storage = Storage(nodes.url, TIMEOUT_S)
    storage.close()
    assert hold(storage, 1) == 1
    storage.close()
    assert hold(storage, 2) == 1
    storage.close()


def test_a_forked_process_reads_the_map_by_itself(storage: Storage, nodes: Cluster) -> None:
    """Its parent's thread is not there, and the map that it inherits may be wrong."""
    assert hold(storage, 1) == 1
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            assert not any(thread.alive for thread in storage.threads)
            storage.close()
            status = 0 if {hold(storage, shard) for shard in range(50)} == {1} else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert hold(storage, 2) == 1


def test_everything_over_all_masters(storage: Storage, nodes: Cluster, tmp_path: Path) -> None:
    """Pipelines, counts, scans and the time: one answer from three masters."""
    nodes.flush()
    keys = [f"{{{shard:03}}}:outbox" for shard in range(300)]
    assert storage.pipeline([("ZADD", key, shard, "user") for shard, key in enumerate(keys)]) == [1] * 300
    assert storage.pipeline([("ZCARD", key) for key in keys]) == [1] * 300
    assert storage.size() == 300
    assert sorted(storage.scan("{*}:outbox")) == sorted(key.encode() for key in keys)
    assert len(storage.servers()) == 3
    assert storage.now_ms() > 1_700_000_000_000


def test_a_master_that_is_killed_is_told_by_code_and_the_rest_serve(tmp_path: Path) -> None:
    """No replica takes over: its slots are away, the others are not."""
    with stopping(Cluster(tmp_path / "cluster", replicas=False)) as nodes:
        for node in nodes.nodes:
            node.client().config_set("cluster-require-full-coverage", "no")
        storage = Storage(nodes.url, TIMEOUT_S)
        assert {hold(storage, shard) for shard in range(30)} == {1}
        nodes.nodes[0].kill()

        def served() -> set[str]:
            found = set()
            for shard in range(30):
                try:
                    found.add(str(hold(storage, shard)))
                except StorageUnavailable as unavailable:
                    found.add(unavailable.code)
            return found

        wait_until(lambda: "1" in served(), 30, "the others serve")
        assert served() <= {"1", "refused", "closed", "CLUSTERDOWN"}
        storage.close()
