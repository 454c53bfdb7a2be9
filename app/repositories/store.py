"""The connection to Redis: how it is made, how scripts are called, how its errors are told.

Writes are never repeated blindly: after a time-out nobody knows whether a script ran, and only the caller
can decide to ask again. Repeated are only answers that say that nothing ran: NOSCRIPT (the script cache was
lost) and, on a cluster, MOVED, ASK and TRYAGAIN (a slot is on the move).
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, cast

import redis
import structlog
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    MovedError,
    NoScriptError,
    TryAgainError,
)
from redis.retry import Retry
from redis.sentinel import Sentinel

from app.errors import StorageUnavailable
from app.redis_url import CLUSTER, SENTINEL, RedisUrl
from app.repositories.lines import KeptConnections, KeptSentinelConnections, Line

MAX_CONNECTIONS = 4096
"""Connections per process: above any worker's number of requests at once, so none waits for another's."""

REDIRECTIONS = 8
TRY_AGAIN_S = 0.05
"""A slot on the move answers TRYAGAIN for some milliseconds; after eight tries the caller hears of it."""

PROMISES = frozenset({"register", "verify_number", "erase_user", "settle_mail"})
"""The scripts on whose outcome somebody outside relies: they wait for replicas where that is asked for."""

REPLICAS = "cedula_replicas"

log = structlog.get_logger()


def connect(url: str, timeout_s: float, replicas: int = 0) -> redis.Redis:
    """A client for any form of REDIS_URL: it gives up after `timeout_s` and never repeats a write.

    `replicas`: how many must have what a script wrote before it counts. Raises ValueError for a URL that
    cannot be read. Only a cluster is asked for its nodes at once; raises RedisError where none answers.
    """
    client = _client(url, timeout_s)
    vars(client)[REPLICAS] = replicas
    return cast(redis.Redis, client)  # a RedisCluster has the same commands


def _client(url: str, timeout_s: float) -> redis.Redis | RedisCluster:
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": MAX_CONNECTIONS,
    }
    where = RedisUrl.read(url)
    options |= where.options
    if where.scheme == SENTINEL:
        return _sentinel(where, options)
    if where.scheme == CLUSTER:
        options.pop("db", None)
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in where.hosts],  # type: ignore[no-untyped-call]
            connection_pool_class=KeptConnections,
            **options,
        )
    return redis.Redis.from_pool(KeptConnections.from_url(url, **options))


def _sentinel(where: RedisUrl, options: dict[str, Any]) -> redis.Redis:
    ways = {name: value for name, value in options.items() if name not in ("db", "max_connections")}
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        where.hosts, sentinel_kwargs={**ways, "username": None, "password": None}
    )
    pool = KeptSentinelConnections(where.service, sentinels, **options)  # type: ignore[no-untyped-call]
    return redis.Redis.from_pool(pool)


class Script:
    """A Lua script: one atomic decision, one round trip.

    `replicas`: how many replicas must have what it wrote before the call returns (WAIT, on the script's own
    connection); fewer raise StorageUnavailable, and the write may stand.
    """

    def __init__(self, client: redis.Redis | RedisCluster, name: str, replicas: int = 0) -> None:
        self._client = client
        self._text = files(__package__).joinpath("lua", f"{name}.lua").read_bytes()
        self._sha1 = hashlib.sha1(self._text, usedforsecurity=False).hexdigest()
        self._replicas = replicas

    def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Runs the script. Raises RedisError."""
        if isinstance(self._client, RedisCluster):
            return self._on_cluster(self._client, keys, args)
        return self._on(self._client.connection_pool, keys, args)

    def _on(self, pool: Any, keys: Sequence[str], args: Sequence[Any], *, asking: bool = False) -> Any:
        call = Line.of(pool).call_alone if asking else Line.of(pool).call
        try:
            return call(("EVALSHA", self._sha1, len(keys), *keys, *args), self._replicas)
        except NoScriptError:
            return call(("EVAL", self._text, len(keys), *keys, *args), self._replicas)

    def _on_cluster(self, cluster: RedisCluster, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Follows the slot to where it is. What cannot be reached has the map of the cluster read anew."""
        pool, asking = None, False
        for _ in range(REDIRECTIONS):
            try:
                if pool is None:
                    pool = _pool(cluster, _node(cluster, keys[0]))
                return self._on(pool, keys, args, asking=asking)
            except MovedError as moved:
                cluster.nodes_manager.move_slot(moved)
                pool, asking = None, False
            except AskError as ask:
                node = cluster.nodes_manager.get_node(ask.host, ask.port)
                pool, asking = _pool(cluster, node), True
            except TryAgainError:
                time.sleep(TRY_AGAIN_S)
            except (redis.ConnectionError, redis.TimeoutError, ClusterError):
                _learn_anew(cluster)
                raise
        raise ClusterDownError("too many redirections")


def _node(cluster: RedisCluster, key: str) -> ClusterNode:
    return cluster.nodes_manager.get_node_from_slot(key_slot(key.encode()))


def _pool(cluster: RedisCluster, node: ClusterNode | None) -> Any:
    if node is None:
        raise ClusterDownError("the slot's node is unknown")
    return cluster.get_redis_connection(node).connection_pool


def _learn_anew(cluster: RedisCluster) -> None:
    try:
        cluster.nodes_manager.initialize()
    except redis.RedisError as error:
        log.warning("cluster_unknown", error=error_code(error))


def load_script(client: redis.Redis, name: str) -> Script:
    """The Lua script `lua/<name>.lua`; it is sent to Redis when it is first called."""
    return Script(client, name, vars(client).get(REPLICAS, 0) if name in PROMISES else 0)


def run(script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
    """Calls a script. Raises StorageUnavailable."""
    with storage_errors():
        return script(keys, args)


def now_ms(client: redis.Redis | RedisCluster) -> int:
    """Unix time in ms by the clock of Redis, by which everything there is due. Raises RedisError."""
    told = client.time()
    # Every node of a cluster tells its own; the latest finds what is due on any.
    seconds, micros = max(told.values()) if isinstance(told, dict) else told
    return int(seconds) * 1000 + int(micros) // 1000


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turns whatever Redis or the way to it says into StorageUnavailable.

    Only the kind of error is logged, never its text: an error of a script can quote its arguments.
    """
    try:
        yield
    except redis.RedisError as error:
        log.warning("storage_unavailable", error=error_code(error))
        raise StorageUnavailable("Redis does not answer, or refuses the write") from error


def error_code(error: redis.RedisError) -> str:
    """The error's class, and Redis's own code word (READONLY, OOM, MISCONF …) where it has one."""
    word = str(error).split(" ", 1)[0]
    kind = type(error).__name__
    return f"{kind}:{word}" if word.isalpha() and word.isupper() else kind
