"""The connection to Redis: how it is made, how scripts are called, how its errors are told.

Writes are never repeated blindly: after a time-out nobody knows whether a script ran, and only the caller
can decide to ask again. Repeated are only answers that say that nothing ran: NOSCRIPT (the script cache was
lost) and, on a cluster, MOVED, ASK and TRYAGAIN (a slot is on the move), and what could not be sent at all
once another node has the slot.
"""

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, cast

import redis
import structlog
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry
from redis.sentinel import Sentinel

from app.errors import StorageUnavailable
from app.storage.cluster import Cluster
from app.storage.faults import ERRORS, TooFewReplicas, error_code, lasts, was_sent
from app.storage.lines import KeptConnections, KeptSentinelConnections, Line
from app.storage.url import CLUSTER, SENTINEL, UNIX, RedisUrl

MAX_CONNECTIONS = 4096
"""Connections per process: above any worker's number of requests at once, so none waits for another's."""

REDIRECTIONS = 8
TRY_AGAIN_S = 0.05
"""A slot on the move answers TRYAGAIN until all its keys have arrived: some milliseconds, as a rule."""

HALF_MOVED = "non local key"
"""What a script says that touches a key it could not declare, when that key has left the slot's old node.
Our scripts do so before their first write."""

PROMISES = frozenset({"register", "verify_number", "erase_user", "settle_mail"})
"""The scripts on whose outcome somebody outside relies: they wait for replicas where that is asked for."""

REPLICAS = "cedula_replicas"

log = structlog.get_logger()


def connect(url: str, timeout_s: float, replicas: int = 0) -> redis.Redis:
    """A client for any form of REDIS_URL: it gives up after `timeout_s` and never repeats a write.

    Nothing is asked of Redis yet, so it may be away. `replicas`: how many must have what a script wrote
    before it counts. Raises ValueError for a URL that cannot be read.
    """
    client = _client(RedisUrl.read(url), timeout_s)
    vars(client)[REPLICAS] = replicas
    return cast(redis.Redis, client)  # a RedisCluster has the same commands


def _client(where: RedisUrl, timeout_s: float) -> redis.Redis | RedisCluster:
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": MAX_CONNECTIONS,
        "driver_info": None,  # CLIENT SETINFO: two more round trips, and nothing for an ACL user
    }
    if where.scheme == CLUSTER:
        return Cluster(where, timeout_s, **options)
    options |= {"db": where.db, **where.options}
    if where.scheme == SENTINEL:
        return _sentinel(where, timeout_s, options)
    if where.scheme == UNIX:
        options |= {"connection_class": UnixDomainSocketConnection, "path": where.path}
    else:
        host, port = where.hosts[0]
        kind = SSLConnection if where.tls else Connection
        options |= {"connection_class": kind, "host": host, "port": port}
    return redis.Redis.from_pool(KeptConnections(**options))


def _sentinel(where: RedisUrl, timeout_s: float, options: dict[str, Any]) -> redis.Redis:
    ours = ("db", "max_connections", "username", "password")
    ways = {name: value for name, value in options.items() if name not in ours}
    # They are asked one after the other, so that all together may be silent no longer than one server.
    ways |= dict.fromkeys(("socket_timeout", "socket_connect_timeout"), timeout_s / len(where.hosts))
    sentinels = Sentinel(where.hosts, sentinel_kwargs={**ways, "ssl": where.tls})  # type: ignore[no-untyped-call]
    pool = KeptSentinelConnections(where.service, sentinels, ssl=where.tls, **options)  # type: ignore[no-untyped-call]
    return redis.Redis.from_pool(pool)


Send = Callable[[tuple[Any, ...], int], Any]
"""Sends one command to one server, for so many replicas, and returns the answer."""


class Call(ABC):
    """Something to do on the one server that has the slot of its keys."""

    def __init__(self, client: redis.Redis | RedisCluster) -> None:
        self._client = client

    def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Does it. Raises one of `faults.ERRORS`."""
        if isinstance(self._client, Cluster):
            return self._on_cluster(self._client, keys, args)
        return self._on(cast(redis.Redis, self._client).connection_pool, keys, args)

    @abstractmethod
    def _do(self, send: Send, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Sends what there is to send."""

    def _on(self, pool: Any, keys: Sequence[str], args: Sequence[Any], *, asking: bool = False) -> Any:
        line = Line.of(pool)
        return self._do(line.call_alone if asking else line.call, keys, args)

    def _on_cluster(self, cluster: Cluster, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Follows the slot to where it is, for as long as nothing has run and the time-out lasts."""
        until = time.monotonic() + cluster.timeout_s
        asked = None
        for _ in range(REDIRECTIONS):
            try:
                node = asked or cluster.node(keys[0])
                return self._patiently(cluster.pool(node), keys, args, until, asking=asked is not None)
            except MovedError as moved:
                asked = None
                cluster.moved(moved)
            except AskError as ask:
                asked = cluster.asked(ask)
            except (redis.ConnectionError, redis.TimeoutError, ClusterDownError) as error:
                learnt = cluster.learn()
                if was_sent(error) or isinstance(error, TooFewReplicas):
                    raise
                learnt.wait(until - time.monotonic())
                if time.monotonic() > until or cluster.node(keys[0]) == node:
                    raise
                asked = None
        raise ClusterDownError("too many redirections")

    def _patiently(
        self, pool: Any, keys: Sequence[str], args: Sequence[Any], until: float, *, asking: bool
    ) -> Any:
        """Asks again while the keys of the slot are partly here and partly there."""
        while True:
            try:
                return self._on(pool, keys, args, asking=asking)
            except ResponseError as error:
                on_the_move = isinstance(error, TryAgainError) or HALF_MOVED in str(error)
                if not on_the_move or time.monotonic() > until:
                    raise
            time.sleep(TRY_AGAIN_S)


class Script(Call):
    """A Lua script: one atomic decision, one round trip.

    `replicas`: how many replicas must have what it wrote before the call returns (WAIT, on the script's own
    connection); fewer raise TooFewReplicas, and the write may stand.
    """

    def __init__(self, client: redis.Redis | RedisCluster, text: bytes, replicas: int = 0) -> None:
        super().__init__(client)
        self._text = text
        self._sha1 = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        self._replicas = replicas

    def _do(self, send: Send, keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            return send(("EVALSHA", self._sha1, len(keys), *keys, *args), self._replicas)
        except NoScriptError:
            return send(("EVAL", self._text, len(keys), *keys, *args), self._replicas)


class Command(Call):
    """One command on one key."""

    def __init__(self, client: redis.Redis | RedisCluster, name: str) -> None:
        super().__init__(client)
        self._name = name

    def _do(self, send: Send, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return send((self._name, *keys, *args), 0)


def load_script(client: redis.Redis, name: str) -> Script:
    """The Lua script `lua/<name>.lua`; it is sent to Redis when it is first called."""
    text = files("app.repositories").joinpath("lua", f"{name}.lua").read_bytes()
    return Script(client, text, vars(client).get(REPLICAS, 0) if name in PROMISES else 0)


def run(call: Call, keys: Sequence[str], args: Sequence[Any]) -> Any:
    """Does it. Raises StorageUnavailable."""
    with storage_errors():
        return call(keys, args)


def now_ms(client: redis.Redis | RedisCluster) -> int:
    """Unix time in ms by the clock of Redis, by which everything there is due. Raises RedisError."""
    if isinstance(client, RedisCluster):
        # Every master tells its own; the latest finds what is due on any. A replica that is away matters not.
        everywhere: Any = client.time(target_nodes=RedisCluster.PRIMARIES)
        told = max(everywhere.values())
    else:
        told = client.time()
    seconds, micros = told
    return int(seconds) * 1000 + int(micros) // 1000


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turns whatever Redis or the way to it says into StorageUnavailable.

    Only the kind of error is logged, never its text: an error of a script can quote its arguments.
    """
    try:
        yield
    except ERRORS as error:
        tell = log.error if lasts(error) else log.warning
        tell("storage_unavailable", error=error_code(error))
        raise StorageUnavailable("Redis does not answer, or refuses the write") from error
