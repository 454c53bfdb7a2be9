"""A master is killed under load: who is told what, for how long, and what is left of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app.repositories.scripts import lua
from app.storage.scripts import Key, script
from app.storage.storage import Storage
from tests.support.records import Records
from tests.support.scan import Client, contradictions
from tests.support.servers import Valkey
from tests.support.topologies import FAILOVER_MS, Cluster, SentinelPair, has_replica
from tests.support.waiting import wait_until
from tests.topologies.load import Load, load
from tests.topologies.places import is_master, masters, whole

WITHIN_S = FAILOVER_MS / 1000 + 8.0
"""The fail-over time, an election of a second or two, and what a busy machine adds."""


KILLS = 10
CUT_OFF_S = 0.3
"""For so long a master takes writes that nobody else has."""


def own(client: int) -> list[str]:
    return [f"user{number}.of{client}@example.com" for number in range(25)]


def served_again(running: Load) -> None:
    """Registrations go on: for a second nobody was refused."""

    def calm() -> bool:
        latest = [a for a in running.answers if a.asked > time.monotonic() - 1.0]
        return len(latest) > 10 and all(answer.status != 503 for answer in latest)

    wait_until(calm, WITHIN_S + 1, "registrations go on")


def warm(running: Load) -> None:
    since = time.monotonic()
    wait_until(lambda: running.successes(since) > 100, 30, "the load runs")


def kill(victim: Valkey, running: Load) -> float:
    """Under load; when it was (monotonic)."""
    killed_at = time.monotonic()
    victim.kill()
    wait_until(lambda: running.refused_since(killed_at), 30, "somebody is refused")
    return killed_at


def assert_no_half_state(client: Client) -> None:
    """Entries without a record are dropped by the next sweep."""
    wait_until(lambda: contradictions(client) == [], 30, "no half state")


def tell(what: str, running: Load, killed_at: float) -> None:
    outage_s = max(running.refused_since(killed_at))
    print(f"{what}: refused for {outage_s:.1f} s, {dict(running.statuses)}")  # noqa: T201 - the figure


@pytest.mark.timeout(120)
def test_a_cluster_loses_a_master(cluster: Cluster, tmp_path: Path) -> None:
    """Registrations go on within the fail-over time; the only errors are 503s; no half state is left."""
    cluster.flush()
    victim = masters(cluster)[0]
    with load(tmp_path, cluster.url, own) as running:
        warm(running)
        killed_at = kill(victim, running)
        served_again(running)
    victim.start()
    wait_until(lambda: whole(cluster), 40, "the killed node follows")
    tell("cluster", running, killed_at)
    running.assert_only_503_and_in_time()
    assert max(running.refused_since(killed_at)) < WITHIN_S
    assert_no_half_state(cluster.client())


@pytest.mark.timeout(150)
@pytest.mark.parametrize("comes_back", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sentinels_promote_the_replica(pair: SentinelPair, tmp_path: Path, comes_back: bool) -> None:
    """The same; and when the old master comes back, a master in its own eyes, nobody writes to it."""
    wait_until(lambda: has_replica(pair.master) or has_replica(pair.replica), 60, "there is a replica")
    victim, other = (pair.master, pair.replica) if is_master(pair.master) else (pair.replica, pair.master)
    pair.client().flushall()
    with load(tmp_path, pair.url, own) as running:
        warm(running)
        killed_at = kill(victim, running)
        served_again(running)
        if comes_back:
            victim.start()
            wait_until(lambda: has_replica(other), 60, "the killed node follows")
            served_again(running)
    tell("sentinels", running, killed_at)
    running.assert_only_503_and_in_time()
    assert max(running.refused_since(killed_at)) < WITHIN_S + 1
    assert_no_half_state(pair.client())
    if not comes_back:
        victim.start()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_with_an_acknowledging_replica_a_killed_master_takes_nothing_with_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    """REDIS_WAIT_REPLICAS=1, kill -9 of one master after the other, each started again: every registration
    that was acknowledged is there, and every token that was handed out is not. Each goes with writes that
    no replica has: on one machine there would be none but by rare chance."""
    wait_until(lambda: whole(cluster), 40, "all replicas are there")
    cluster.flush()
    with load(tmp_path, cluster.url, own, REDIS_WAIT_REPLICAS="1") as running:
        for turn in range(KILLS):
            victim = masters(cluster)[turn % 3]
            warm(running)
            with cut_off(cluster, victim):
                time.sleep(CUT_OFF_S)
                killed_at = kill(victim, running)
            wait_until(lambda: len(masters(cluster)) == 3, WITHIN_S, "a replica takes over")
            victim.start()
            wait_until(lambda: whole(cluster), 40, "the killed node follows")
            served_again(running)
    tell(f"{KILLS} kills, acknowledged by a replica", running, killed_at)
    running.assert_only_503_and_in_time()
    client = cluster.client()
    running.assert_nothing_lost(Records(client))
    assert_no_half_state(client)


@contextmanager
def cut_off(cluster: Cluster, master: Valkey) -> Iterator[None]:
    """Its replica is silent and gets nothing any more, for a moment that nobody takes for its end."""
    port = master.client().info("replication")["slave0"]["port"]
    replica = next(node for node in cluster.nodes if node.port == port)
    with replica.frozen():
        master.client().execute_command("CLIENT", "KILL", "TYPE", "replica")
        yield


@script(lua("hold_lock"), acknowledged=True)
class HoldLockForGood(NamedTuple):
    """A lock that replicas must have."""

    lock: Key
    owner: str
    ttl_ms: int


def test_a_node_that_became_a_replica_tells_the_way_although_it_cannot_wait(cluster: Cluster) -> None:
    """A process that was idle meanwhile asks the old master: MOVED must count, and not what WAIT says."""
    wait_until(lambda: whole(cluster), 40, "all replicas are there")
    storage = Storage(cluster.url, 2.0, replicas=1)
    assert storage.run(HoldLockForGood("{123}:lock", "owner", 10_000)) == 1
    found: Any = cluster.client()
    old = next(node for node in masters(cluster) if node.port == found.get_node_from_key("{123}").port)
    new = next(n for n in cluster.nodes if n.port == old.client().info("replication")["slave0"]["port"])
    new.client().execute_command("CLUSTER FAILOVER")
    wait_until(lambda: is_master(new) and not is_master(old), 30, "they have changed places")
    wait_until(lambda: has_replica(new), 30, "the old one follows")
    assert storage.run(HoldLockForGood("{123}:lock", "owner", 10_000)) == 1
    storage.close()
