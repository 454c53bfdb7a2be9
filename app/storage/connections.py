"""One connection to a Redis server: how it is made, and one exchange over it.

redis-py's own connection classes make it from REDIS_URL. Each connects, logs in (HELLO) and chooses its
database, and says nothing else.

In one exchange the commands of some callers travel in one write, and their answers in one read (implicit
pipelining): every write to a socket costs as much as the rest of a script call. Imports `faults` and `url`.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import MasterDownError, ReadOnlyError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.sentinel import Sentinel

from app.storage.faults import Broken, NoSuchDatabase, TooFewReplicas
from app.storage.url import SENTINEL, UNIX, RedisUrl

Command = tuple[Any, ...]

Connect = Callable[[], AbstractConnection]
"""Makes a connection that is ready for commands. Raises the error that prevents it."""

OF_A_POOL = ("max_connections",)
"""Options that REDIS_URL may have and that say nothing here: a process has one connection to each server."""

OF_THE_DATA = ("db", "username", "password")
"""Options that do not hold for sentinels."""

WAIT_SHARE = 0.9
"""Of the time that is left: the answer to WAIT must come before the first caller that wants it gives up."""

NOT_THE_MASTER = (ReadOnlyError, MasterDownError)


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


class Call:
    """The commands of one caller on their way, and their answers."""

    __slots__ = ("answers", "count", "deadline", "done", "error", "packed", "refused", "replicas", "sent")

    def __init__(self, commands: Sequence[Command], replicas: int, deadline: float) -> None:
        self.packed = b"".join([_pack(command) for command in commands])
        self.count = len(commands)
        self.replicas = replicas
        self.deadline = deadline
        self.answers: list[Any] = []
        self.refused = False
        self.error: BaseException | None = None
        self.sent = False
        self.done = threading.Event()

    def leave(self) -> None:
        """It is on its way: a caller that gives up from now on cannot know whether it ran."""
        self.sent = True

    def read(self, connection: Any) -> None:
        """Reads the answers; a refusal is one."""
        for _ in range(self.count):
            try:
                self.answers.append(_answer(connection))
            except ResponseError as refusal:
                self.answers.append(refusal)
                self.refused = True

    @property
    def needs_replicas(self) -> bool:
        """A command that was refused has written nothing, and its refusal tells why."""
        return self.replicas > 0 and not self.refused

    def end(self, error: BaseException | None = None) -> None:
        """The caller waits no longer. It is told the error, unless it has all that it waits for."""
        if error is not None and (len(self.answers) < self.count or self.needs_replicas):
            self.error = self.error or error
        self.done.set()

    def result(self) -> list[Any]:
        """The answers. Raises Broken."""
        if self.error is not None:
            raise Broken(self.error, sent=self.sent) from self.error
        return self.answers


def exchange(connection: AbstractConnection, calls: Sequence[Call]) -> bool:
    """Sends the calls and reads their answers. Returns whether the server is still the right one.

    Has no time-out: the watchdog ends the connection once no caller waits for it. Raises what breaks it.
    """
    packed = [call.packed for call in calls]
    replicas = max([call.replicas for call in calls])
    if replicas:
        left_s = min([call.deadline for call in calls if call.replicas]) - time.monotonic()
        packed.append(_pack(("WAIT", replicas, max(1, int(1000 * WAIT_SHARE * left_s)))))
    connection.send_packed_command([b"".join(packed)])  # type: ignore[no-untyped-call] # redis-py has no types here
    for call in calls:
        call.read(connection)
    if replicas:
        _count(connection, calls, replicas)
    refusals = [answer for call in calls if call.refused for answer in call.answers]
    return not any(isinstance(refusal, NOT_THE_MASTER) for refusal in refusals)


def _count(connection: AbstractConnection, calls: Sequence[Call], replicas: int) -> None:
    """Reads the answer to WAIT."""
    try:
        if _answer(connection) >= replicas:
            return
        error: redis.RedisError = TooFewReplicas("too few replicas have it")
    except ResponseError as refusal:
        error = refusal
    for call in calls:
        if call.needs_replicas:
            call.error = error


def _answer(connection: AbstractConnection) -> Any:
    """Raises ResponseError for a refusal."""
    return connection.read_response(timeout=None)


def _pack(command: Command) -> bytes:
    packed: bytes = pack_command(command)
    return packed
