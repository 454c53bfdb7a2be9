"""How a connection is made: from REDIS_URL, by redis-py's own connection classes.

Each connects, logs in (HELLO) and chooses its database, and says nothing else.
"""

from collections.abc import Callable
from typing import Any

from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ResponseError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.sentinel import Sentinel

from app.storage.faults import NoSuchDatabase
from app.storage.url import SENTINEL, UNIX, RedisUrl

Connect = Callable[[], AbstractConnection]
"""Makes a connection that is ready for commands. Raises the error that prevents it."""

OF_A_POOL = ("max_connections",)
"""Options that REDIS_URL may have and that say nothing here: a process has one connection to each server."""

OF_THE_DATA = ("db", "username", "password")
"""Options that do not hold for sentinels."""


class Connections:
    """Makes connections to the servers of one REDIS_URL."""

    def __init__(self, where: RedisUrl, timeout_s: float) -> None:
        self._where = where
        self._class = SSLConnection if where.tls else Connection
        self._options: dict[str, Any] = {
            "protocol": 3,
            "db": where.db,
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "driver_info": None,  # no CLIENT SETINFO
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
            **{name: value for name, value in where.options.items() if name not in OF_A_POOL},
        }

    def connect(self) -> Connect:
        """For everything but a cluster: how its one master is reached."""
        if self._where.scheme == UNIX:
            return self.to_socket
        if self._where.scheme == SENTINEL:
            sentinels = self._sentinels()
            discover: Callable[[str], tuple[str, int]] = sentinels.discover_master
            return lambda: self.to(*discover(self._where.service))
        host, port = self._where.hosts[0]
        return lambda: self.to(host, port)

    def to(self, host: str, port: int) -> AbstractConnection:
        return _connected(self._class(host=host, port=port, **self._options))

    def to_socket(self) -> AbstractConnection:
        kind: Any = UnixDomainSocketConnection  # redis-py's types know no `host` of it
        return _connected(kind(path=self._where.path, **self._options))

    def _sentinels(self) -> Sentinel:
        options = {name: value for name, value in self._options.items() if name not in OF_THE_DATA}
        # They are asked one after the other: all together may be silent no longer than one server.
        for name in ("socket_timeout", "socket_connect_timeout"):
            options[name] /= len(self._where.hosts)
        options["ssl"] = self._where.tls
        return Sentinel(self._where.hosts, sentinel_kwargs=options)  # type: ignore[no-untyped-call] # redis-py has no types here


def _connected(connection: AbstractConnection) -> AbstractConnection:
    try:
        connection.connect()  # type: ignore[no-untyped-call] # redis-py has no types here
    except ResponseError as error:
        # After HELLO only SELECT is refused in so general a way.
        if connection.handshake_metadata and connection.db and error.status_code == "ERR":
            raise NoSuchDatabase from error
        raise
    return connection
