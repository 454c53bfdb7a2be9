"""Connections to one Redis server: kept, and shared by many callers at a time.

Every write to a socket costs as much as the rest of a script call. So callers of one process that come
while an exchange is under way travel together in the next one (implicit pipelining): one write, one read.
The first one lets others that are ready go before it, and waits for nobody.
"""

import os
import threading
import time
import weakref
from typing import Any, Self

import redis
from hiredis import pack_command
from redis.sentinel import SentinelConnectionPool

from app.storage.faults import NOT_THE_MASTER, TooFewReplicas, mark_unsent

CHECK_AFTER_IDLE_S = 1.0
"""A connection that rested longer is looked at before it is used. One that was used just now and has died
since means that Redis died just now: then 503 is the right answer."""

WAIT_SHARE = 0.9
"""Of a connection's time-out: the answer to WAIT must come before it."""

LONG_SHARE = 0.5
"""Of a connection's time-out: an exchange that fails after longer has waited for silence."""

SILENCE = (redis.ConnectionError, redis.TimeoutError)


_forks = 0


def _forked() -> None:
    global _forks  # noqa: PLW0603 - counted here rather than asking for our process id with every call
    _forks += 1


os.register_at_fork(after_in_child=_forked)


class _Kept:
    """A pool that hands out connections with little ado.

    redis-py's own polls every connection at every checkout and counts each state for telemetry: a tenth of
    the CPU time of a registration.
    """

    def get_connection(self, *_: Any, **__: Any) -> Any:
        self._checkpid()  # type: ignore[attr-defined]
        try:
            connection = self._available_connections.pop()  # type: ignore[attr-defined]
        except IndexError:
            connection = self.make_connection()  # type: ignore[attr-defined]
        try:
            # One that is closed must not find its way by itself: it would go to the server that it knew, and
            # not to the master that the sentinels name now.
            if (
                not connection.is_connected
                or time.monotonic() - getattr(connection, "rested_since", 0.0) > CHECK_AFTER_IDLE_S
            ):
                _look_at(connection)
        except BaseException:
            self.release(connection)
            raise
        return connection

    def release(self, connection: Any) -> None:
        self._checkpid()  # type: ignore[attr-defined]
        if not self.owns_connection(connection):  # type: ignore[attr-defined]
            connection.disconnect()
            if connection.pid == self.pid:  # type: ignore[attr-defined]
                self._created_connections -= 1  # type: ignore[attr-defined]
            return
        if connection.should_reconnect():
            connection.disconnect()
        connection.rested_since = time.monotonic()
        self._available_connections.append(connection)  # type: ignore[attr-defined]


class KeptConnections(_Kept, redis.ConnectionPool):
    """For one server, or one node of a cluster."""


class KeptSentinelConnections(_Kept, SentinelConnectionPool):
    """For the master that the sentinels name."""


def _look_at(connection: Any) -> None:
    """Connects where needed. A connection that the server has closed, or said something on, is made anew."""
    connection.connect()
    try:
        clean = not connection.can_read()
    except (redis.ConnectionError, redis.TimeoutError, OSError):
        clean = False
    if not clean:
        connection.disconnect()
        connection.connect()


class _Call:
    """One command on its way: its answer, or what went wrong. Raises TypeError for what is no command."""

    __slots__ = ("answer", "answered", "error", "leads", "packed", "ready", "replicas")

    def __init__(self, command: tuple[Any, ...], replicas: int) -> None:
        self.packed = _pack(command)
        self.replicas = replicas
        self.answer: Any = None
        self.answered = False
        self.error: redis.RedisError | None = None
        self.leads = False
        self.ready: threading.Lock | None = None

    def wait(self) -> None:
        """Until it is answered, or leads."""
        if self.ready is not None:
            self.ready.acquire()

    def wake(self) -> None:
        if self.ready is not None:
            self.ready.release()

    def read(self, connection: Any) -> None:
        """Reads its answer; that the command was refused is one."""
        try:
            self.answer, self.error = connection.read_response(), None
        except redis.ResponseError as error:
            self.error = error
        self.answered = True

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        if not self.answered:
            raise redis.ConnectionError("no answer")
        return self.answer


class Line:
    """Carries the commands of many callers to one server, in order, one exchange at a time.

    Whoever finds the line idle leads an exchange: it sends what waits and reads every answer. Then the
    first of those who came meanwhile leads the next. So nobody works for others longer than one exchange.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = weakref.proxy(pool)  # the pool owns the line
        self._forks = _forks
        self._mutex = threading.Lock()
        self._waiting: list[_Call] = []
        self._led = False
        self._timeout_s: float = pool.connection_kwargs.get("socket_timeout") or 60.0
        self._wait_ms = int(1000 * WAIT_SHARE * self._timeout_s)

    @classmethod
    def of(cls, pool: Any) -> Self:
        """The line of a pool; a new one in a forked process, where nobody leads the old one."""
        line: Self | None = getattr(pool, "cedula_line", None)
        if line is None or line._forks != _forks:
            line = pool.cedula_line = cls(pool)
        return line

    def call(self, command: tuple[Any, ...], replicas: int = 0) -> Any:
        """The answer to one command. Raises RedisError. `replicas`: WAIT for so many."""
        call = _Call(command, replicas)
        with self._mutex:
            self._waiting.append(call)
            call.leads, self._led = not self._led, True
            if not call.leads:
                call.ready = threading.Lock()
                call.ready.acquire()
        try:
            if call.leads:
                time.sleep(0)  # whoever has a command ready comes along; nobody is waited for
            else:
                call.wait()
        except BaseException:  # a greenlet that is killed meanwhile
            self._leave(call)
            raise
        if call.leads:
            self._lead()
        return call.result()

    def call_alone(self, command: tuple[Any, ...], replicas: int = 0) -> Any:
        """The same where a slot is on the move: ASKING counts for the one command after it."""
        asking, call = _Call(("ASKING",), 0), _Call(command, replicas)
        self._exchange([asking, call])
        return call.result()

    def _lead(self) -> None:
        with self._mutex:
            batch, self._waiting = self._waiting, []
        began = time.monotonic()
        try:
            self._exchange(batch)
        finally:
            with self._mutex:
                if time.monotonic() - began > LONG_SHARE * self._timeout_s:
                    batch += self._give_up(batch)
                self._hand_on()
            for call in batch:
                call.wake()

    def _give_up(self, batch: list[_Call]) -> list[_Call]:
        """Who came meanwhile has waited for the same silence: nobody waits for it twice."""
        error = next((call.error for call in batch if isinstance(call.error, SILENCE)), None)
        given_up = [
            call
            for call in self._waiting
            if error is not None and (call.replicas or not isinstance(error, TooFewReplicas))
        ]
        self._waiting = [call for call in self._waiting if call not in given_up]
        _fail(given_up, error)
        return given_up

    def _hand_on(self) -> None:
        """The first who waits leads next."""
        self._led = bool(self._waiting)
        if self._led:
            self._waiting[0].leads = True
            self._waiting[0].wake()

    def _leave(self, call: _Call) -> None:
        with self._mutex:
            if call in self._waiting:
                self._waiting.remove(call)
                if call.leads:
                    self._hand_on()

    def _exchange(self, batch: list[_Call]) -> None:
        """Sends the batch and reads its answers. An error of the connection is every unanswered call's."""
        try:
            connection = self._pool.get_connection()
        except redis.RedisError as error:
            mark_unsent(error)
            _fail(batch, error)
            return
        replicas = max(call.replicas for call in batch)
        packed = [call.packed for call in batch]
        if replicas:
            packed.append(_pack(("WAIT", replicas, self._wait_ms)))
        try:
            connection.send_packed_command([b"".join(packed)])
            for call in batch:
                call.read(connection)
            if replicas:
                _count(connection, batch, replicas)
            if any(isinstance(call.error, NOT_THE_MASTER) for call in batch):
                connection.disconnect()  # its name may lead to another server by now
        except redis.RedisError as error:
            connection.disconnect()
            _fail([call for call in batch if not call.answered or _needs_replicas(call)], error)
        except BaseException:
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)


def _pack(command: tuple[Any, ...]) -> bytes:
    packed: bytes = pack_command(command)
    return packed


def _count(connection: Any, batch: list[_Call], replicas: int) -> None:
    """Reads the answer to WAIT. A call that was refused has written nothing, and its refusal tells why."""
    error: redis.RedisError | None = None
    try:
        if connection.read_response() < replicas:
            error = TooFewReplicas("too few replicas have it")
    except redis.ResponseError as refused:
        error = refused
    if error is not None:
        _fail([call for call in batch if _needs_replicas(call)], error)


def _needs_replicas(call: _Call) -> bool:
    return bool(call.replicas) and call.error is None


def _fail(calls: list[_Call], error: redis.RedisError | None) -> None:
    for call in calls:
        call.error = error
