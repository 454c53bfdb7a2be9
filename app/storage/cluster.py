"""A Redis Cluster: which node has which slot, learnt when it is needed and anew when it turns out wrong."""

import threading
import time
from typing import Any

import redis
import structlog
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisClusterException

from app.storage.faults import ERRORS, error_code
from app.storage.lines import KeptConnections
from app.storage.url import RedisUrl

LEARN_AGAIN_AFTER_S = 0.1
"""Reading the map costs this process some milliseconds, and while a master is away every call asks for it."""

LEARNT = frozenset({"nodes_manager", "commands_parser", "_policy_resolver", "_lock"})
"""What redis-py's client has only after the cluster has answered."""

log = structlog.get_logger()


class Cluster(RedisCluster):
    """redis-py's client, made to wait for nobody.

    redis-py's own asks the cluster for its nodes in the constructor, so that no worker could start while
    the cluster is away, and reads the map anew in the middle of a request, one node after the other. Here
    one thread reads for all, beside the requests.
    """

    def __init__(self, where: RedisUrl, timeout_s: float, **options: Any) -> None:
        self._where = where
        self._options = {**options, **where.options}
        self.timeout_s = timeout_s
        self._mutex = threading.Lock()
        self._learner: threading.Thread | None = None
        self._learnt = threading.Event()
        self._made = False
        self._fault: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        """Only for what is not there yet. Raises RedisClusterException while the cluster is away."""
        if name not in LEARNT:
            raise AttributeError(name)
        self.learn().wait(self.timeout_s)
        if name not in vars(self):
            raise RedisClusterException("no node of the cluster answers") from self._fault
        return vars(self)[name]

    def close(self) -> None:
        if self._made:
            self.disconnect_connection_pools()  # type: ignore[no-untyped-call]
            super().close()

    def learn(self) -> threading.Event:
        """Has the map read anew, unless that is being done; the event tells when it has been."""
        with self._mutex:
            if self._learner is None or not self._learner.is_alive():
                self._learnt = threading.Event()
                self._learner = threading.Thread(
                    target=self._learn, args=(self._learnt,), daemon=True, name="cluster-map"
                )
                self._learner.start()
            return self._learnt

    def node(self, key: str) -> ClusterNode:
        """The master that has the key. Raises ClusterDownError where the map has none."""
        nodes = self.nodes_manager.slots_cache.get(key_slot(key.encode()))
        if not nodes:
            raise ClusterDownError("the slot has no node")
        return nodes[0]

    def moved(self, to: MovedError) -> None:
        """Takes over what a node said of one slot."""
        manager = self.nodes_manager
        with manager._lock:
            manager.slots_cache.setdefault(to.slot_id, [])
            if not manager.slots_cache[to.slot_id]:
                manager.slots_cache[to.slot_id] = [self.asked(to)]
            manager.move_slot(to)

    def asked(self, to: AskError) -> ClusterNode:
        """The node that was named; one that has no slot yet is on no map."""
        manager = self.nodes_manager
        with manager._lock:
            node = manager.get_node(to.host, to.port)
            if node is None:
                node = ClusterNode(to.host, to.port, "primary")  # type: ignore[no-untyped-call]
                manager.nodes_cache[node.name] = node
            return node

    def pool(self, node: ClusterNode) -> redis.ConnectionPool:
        return self.get_redis_connection(node).connection_pool

    def _learn(self, done: threading.Event) -> None:
        try:
            if self._made:
                # The hosts of REDIS_URL beside the nodes that are known: in Kubernetes all may have moved.
                self.nodes_manager.initialize(additional_startup_nodes_info=self._where.hosts)
            else:
                self._make()
                self._made = True
            self._fault = None
        except ERRORS as error:
            self._fault = error
            log.warning("cluster_unknown", error=error_code(error))
        finally:
            done.set()
        time.sleep(LEARN_AGAIN_AFTER_S)

    def _make(self) -> None:
        (host, port), *others = self._where.hosts
        name = f"[{host}]" if ":" in host else host
        super().__init__(
            # Given a URL, and only then, redis-py takes our pool.
            url=f"{'rediss' if self._where.tls else 'redis'}://{name}:{port}",
            startup_nodes=[ClusterNode(*other) for other in others],  # type: ignore[no-untyped-call]
            connection_pool_class=KeptConnections,
            **self._options,
        )
