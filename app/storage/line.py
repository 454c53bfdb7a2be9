"""One connection to one Redis server, shared by all callers of this process.

Promise: nothing is sent twice, and nothing for a caller that has gone; a connection that was closed while it
rested is replaced unnoticed; each caller gets its answer or an error in time, also while the lookup of a
name, a handshake or an answer that comes byte by byte holds up the connection; a caller whose time is up
takes the connection from nobody who still has time.

A worker thread connects and exchanges. What comes meanwhile travels together in the next exchange, and all
that wait for a connection wait for the same attempt. Callers only wait. The watchdog tells them when their
time is up, and replaces a worker that nobody waits for. May import `connections` and `watchdog`.

Why all this: docs/decisions/0009-kept-redis-connections.md. Tests: tests/integration/test_lines.py.
"""

import math
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

import redis

from app.storage.connections import Call, Command, Connect, exchange
from app.storage.watchdog import Watchdog

CHECK_AFTER_IDLE_S = 1.0
"""A connection that rested longer is checked before it is used. Not every time: a check costs a poll, dear
under gevent. One that was used just now and has died since means that Redis died just now: then 503 is the
right answer."""

ATTEMPT_TIMEOUTS = 10
"""Time-outs after which an attempt to connect is given up and made anew. Not earlier: a process has
few threads for looking up names, and each attempt may hold one."""


class _Worker:
    """A thread with its connection. `used`: when the connection was last used or found good; `patience`:
    until when an attempt to connect may last (both monotonic)."""

    def __init__(self) -> None:
        self.connection: Any = None  # an AbstractConnection once it is connected; hardly typed by redis-py
        self.batch: list[Call] = []
        self.used = 0.0
        self.patience = math.inf
        self.work = threading.Event()

    def start(self, line: "Line") -> None:
        """Raises RuntimeError where the system has no more threads."""
        threading.Thread(target=_work, args=(weakref.ref(line), self), daemon=True, name="redis").start()

    def is_ready(self, now: float) -> bool:
        """Whether its connection can be used as it is: it is there, and has not rested for long."""
        return self.connection is not None and now - self.used <= CHECK_AFTER_IDLE_S

    def ensure_connected(self, connect: Connect) -> None:
        """Sees to a connection that is fit for use: the one that rested, if the server has neither closed it
        nor said anything on it, else a new one."""
        if self.connection is not None:
            try:
                # redis-py polls the socket, and reads nothing. Whatever could be read was not asked for.
                clean = not self.connection.can_read()
            except (redis.RedisError, OSError):
                clean = False
            if not clean:
                self.disconnect()
        if self.connection is None:
            self.connection = connect()
        self.used = time.monotonic()  # else it would not be ready for the batch

    def disconnect(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.disconnect()

    def dismiss(self) -> None:
        """Ends what it does; then its thread ends."""
        self.work.set()
        self.disconnect()

    def exchange(self) -> None:
        """Sends what is in the batch and reads the answers."""
        if not exchange(self.connection, self.batch):
            self.disconnect()  # its name may lead to another server by now
        self.used = time.monotonic()

    def hangs(self, now: float) -> bool:
        """Whether it works for nobody: all callers of its batch were told, or it connects for too long."""
        return now > self.patience or (bool(self.batch) and all(call.done.is_set() for call in self.batch))


class Line:
    """Carries the commands of many callers to one server, in order, one exchange at a time."""

    def __init__(self, connect: Connect, watchdog: Watchdog) -> None:
        self._connect = connect
        self._watchdog = watchdog
        self._mutex = threading.Lock()
        self._waiting: list[Call] = []
        self._worker: _Worker | None = None
        watchdog.add(self)

    def call(
        self, commands: Sequence[Command], replicas: int = 0, timeout_s: float | None = None
    ) -> list[Any]:
        """The answers to commands that are sent side by side; those that were refused are ResponseErrors.

        `replicas`: returns once so many have what was written. `timeout_s`: how long this caller waits, if
        shorter than the watchdog's time-out: in a cluster, what is left of it after a redirection.
        Raises Broken.
        """
        within_s = self._watchdog.timeout_s if timeout_s is None else max(0.0, timeout_s)
        call = Call(commands, replicas, time.monotonic() + within_s)
        try:
            self._queue(call)
            call.done.wait()
        except BaseException:  # a greenlet that is killed meanwhile
            self._withdraw(call)
            raise
        return call.result()

    def close(self) -> None:
        """Ends the connection, and what is under way; a later call makes another."""
        worker = self._worker
        if worker is not None:
            self._give_up(worker, redis.ConnectionError("closed"))
            worker.dismiss()

    def __del__(self) -> None:
        if self._worker is not None:
            self._worker.work.set()

    def end_overdue(self, now: float) -> bool:
        """Tells the callers whose time is up, and replaces a worker that hangs. Others of the same exchange
        go on waiting, and keep the connection. Returns True where there were callers."""
        late = redis.TimeoutError("no answer in time")
        with self._mutex:
            worker = self._worker
            calls = self._waiting if worker is None else [*worker.batch, *self._waiting]
            for call in calls:
                if call.deadline <= now:
                    call.end(late)
            self._waiting = [call for call in self._waiting if not call.done.is_set()]
            if worker is None or not worker.hangs(now):
                return bool(calls)
            successor = self._worker = _Worker() if self._waiting else None
        try:
            worker.dismiss()
        finally:  # the line must not be left with a worker that nobody has started
            if successor is not None:
                self._wake(successor, start=True)
        return True

    def serve(self, worker: _Worker) -> bool:
        """What the worker does until nobody waits. Returns whether it is still the line's."""
        try:
            while (batch := self._take(worker)) is not None:
                if batch:
                    self._exchange(worker)
                else:
                    worker.ensure_connected(self._connect)
        except BaseException as error:  # no connection, or the thread dies: nobody waits for either
            self._give_up(worker, error)
            if not isinstance(error, Exception):
                raise
        return self._worker is worker

    def _take(self, worker: _Worker) -> list[Call] | None:
        """The worker's next batch: all that waits, or nothing while its connection is not ready. None when no
        caller waits for this worker."""
        with self._mutex:
            worker.patience = math.inf
            if self._worker is not worker or not self._waiting:
                return None
            now = time.monotonic()
            if worker.is_ready(now):
                worker.batch, self._waiting = self._waiting, []
                for call in worker.batch:
                    call.leave()
            else:
                worker.patience = now + ATTEMPT_TIMEOUTS * self._watchdog.timeout_s
            return worker.batch

    def _exchange(self, worker: _Worker) -> None:
        try:
            worker.exchange()
        except Exception as error:  # noqa: BLE001 - told to those who wait for it; others get a new connection
            worker.disconnect()
            self._finish(worker, error)
        else:
            self._finish(worker)

    def _finish(self, worker: _Worker, error: BaseException | None = None) -> None:
        with self._mutex:  # the watchdog must not take an exchange that ends now for one that hangs
            batch, worker.batch = worker.batch, []
        for call in batch:
            call.end(error)

    def _give_up(self, worker: _Worker, error: BaseException) -> None:
        """Tells all who wait for the worker; the next caller gets another one."""
        waiting: list[Call] = []
        with self._mutex:
            if self._worker is worker:
                self._worker = None
                waiting, self._waiting = self._waiting, waiting
        self._finish(worker, error)
        for call in waiting:
            call.end(error)

    def _queue(self, call: Call) -> None:
        with self._mutex:
            self._waiting.append(call)
            fresh = self._worker is None
            worker = self._worker = self._worker or _Worker()
        self._wake(worker, start=fresh)

    def _wake(self, worker: _Worker, *, start: bool) -> None:
        """Outside the mutex, since starting a thread lets other greenlets run; one may kill this one."""
        try:
            try:
                self._watchdog.wake()
            finally:
                worker.work.set()
                if start:
                    worker.start(self)
        except RuntimeError as error:  # the system has no more threads
            self._give_up(worker, error)

    def _withdraw(self, call: Call) -> None:
        """Its caller has gone: it is not sent any more, or nobody waits for its answers."""
        with self._mutex:
            if call in self._waiting:
                self._waiting.remove(call)
        call.done.set()


def _work(found: "weakref.ref[Line]", worker: _Worker) -> None:
    """A worker's life: it ends with its line, or when the line has another one."""
    try:
        while True:
            worker.work.wait()
            worker.work.clear()
            line = found()
            if line is None or not line.serve(worker):
                return
            del line
    finally:
        worker.disconnect()
