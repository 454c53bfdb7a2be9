"""One connection to one Redis server, shared by all callers of this process.

Every write to a socket costs as much as the rest of a script call. So commands that come while an exchange is
under way travel together in the next one (implicit pipelining): one write, one read.

A worker thread connects, writes what waits, reads the answers and wakes the callers. Every caller waits for
its own answer at most `timeout_s`, whatever holds up the worker: the lookup of a name, a handshake, an answer
that comes byte by byte. All that wait for a connection wait for the same attempt. Nothing is sent twice.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import redis
from hiredis import pack_command
from redis.exceptions import MasterDownError, ReadOnlyError, ResponseError

from app.storage.connections import Connect
from app.storage.faults import Broken, TooFewReplicas

Command = tuple[Any, ...]

CHECK_AFTER_IDLE_S = 1.0
"""A connection that rested longer is looked at before it is used. One that was used just now and has died
since means that Redis died just now: then 503 is the right answer."""

WAIT_SHARE = 0.9
"""Of the time that is left: the answer to WAIT must come before the caller gives up."""

ATTEMPT_TIMEOUTS = 10
"""An attempt to connect that takes longer than so many time-outs is given up and made anew. Not earlier: a
process has few threads for looking up names, and each attempt may hold one."""

NOT_THE_MASTER = (ReadOnlyError, MasterDownError)


class _Call:
    """The commands of one caller on their way, and their answers."""

    __slots__ = ("answers", "count", "deadline", "done", "error", "packed", "refused", "replicas", "sent")

    def __init__(self, commands: Sequence[Command], replicas: int, deadline: float) -> None:
        self.packed = _pack(commands[0]) if len(commands) == 1 else b"".join(map(_pack, commands))
        self.count = len(commands)
        self.replicas = replicas
        self.deadline = deadline
        self.answers: list[Any] = []
        self.refused = False
        self.error: BaseException | None = None
        self.sent = False
        self.done = threading.Lock()
        self.done.acquire()

    def read(self, connection: Any) -> None:
        """Reads the answers; a refusal is one."""
        for _ in range(self.count):
            try:
                self.answers.append(connection.read_response())
            except ResponseError as refusal:
                self.answers.append(refusal)
                self.refused = True

    @property
    def needs_replicas(self) -> bool:
        """A command that was refused has written nothing, and its refusal tells why."""
        return self.replicas > 0 and not self.refused

    def fail(self, error: BaseException) -> None:
        if len(self.answers) < self.count or self.needs_replicas:
            self.error = error

    def result(self) -> list[Any]:
        if self.error is None and len(self.answers) < self.count:
            self.error = redis.TimeoutError("no answer in time")
        if self.error is not None:
            raise Broken(self.error, sent=self.sent) from self.error
        return self.answers


class _Worker:
    """A thread with its connection. `began`: when it began what it is doing now; `used`: when its connection
    was in use last (monotonic)."""

    def __init__(self) -> None:
        self.connection: Any = None  # an AbstractConnection once it is connected; hardly typed by redis-py
        self.batch: list[_Call] = []
        self.began = self.used = time.monotonic()
        self.asleep = False
        self.work = threading.Lock()
        self.work.acquire()

    def start(self, line: "Line") -> None:
        threading.Thread(target=_work, args=(weakref.ref(line), self), daemon=True, name="redis").start()

    def wake(self) -> None:
        if self.asleep:
            self.asleep = False
            self.work.release()

    def connect(self, connect: Connect) -> None:
        """Keeps a connection that rested, unless the server has closed it or said something on it."""
        if self.connection is not None:
            try:
                clean = not self.connection.can_read()
            except (redis.RedisError, OSError):
                clean = False
            if not clean:
                self.disconnect()
        if self.connection is None:
            self.connection = connect()
        self.used = time.monotonic()

    def disconnect(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.disconnect()

    def exchange(self) -> None:
        """Sends what is in the batch and reads the answers."""
        connection, batch = self.connection, self.batch
        packed = [call.packed for call in batch]
        replicas = max([call.replicas for call in batch])
        if replicas:
            left_s = min(call.deadline for call in batch) - time.monotonic()
            packed.append(_pack(("WAIT", replicas, max(1, int(1000 * WAIT_SHARE * left_s)))))
        connection.send_packed_command([b"".join(packed)])
        for call in batch:
            call.read(connection)
        if replicas:
            _count(connection, batch, replicas)
        refusals = [answer for call in batch if call.refused for answer in call.answers]
        if any(isinstance(refusal, NOT_THE_MASTER) for refusal in refusals):
            self.disconnect()  # its name may lead to another server by now
        self.used = time.monotonic()


def _count(connection: Any, batch: list[_Call], replicas: int) -> None:
    """Reads the answer to WAIT."""
    try:
        if connection.read_response() >= replicas:
            return
        error: redis.RedisError = TooFewReplicas("too few replicas have it")
    except ResponseError as refusal:
        error = refusal
    for call in batch:
        if call.needs_replicas:
            call.fail(error)


class Line:
    """Carries the commands of many callers to one server, in order, one exchange at a time."""

    def __init__(self, connect: Connect, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._connect = connect
        self._mutex = threading.Lock()
        self._waiting: list[_Call] = []
        self._worker: _Worker | None = None
        in_children(self._start_over)

    def call(
        self, commands: Sequence[Command], replicas: int = 0, timeout_s: float | None = None
    ) -> list[Any]:
        """The answers to commands that are sent side by side; those that were refused are ResponseErrors.

        `replicas`: returns once so many have what was written. `timeout_s`: less than the line's.
        Raises Broken.
        """
        within_s = self.timeout_s if timeout_s is None else max(0.0, timeout_s)
        call = _Call(commands, replicas, time.monotonic() + within_s)
        try:
            self._queue(call)
            if not call.done.acquire(timeout=within_s):
                self._give_up(call)
        except BaseException:  # a greenlet that is killed meanwhile
            self._withdraw(call)
            raise
        return call.result()

    def close(self) -> None:
        """Ends the connection; a later call makes another."""
        with self._mutex:
            worker, self._worker = self._worker, None
            if worker is not None:
                worker.wake()

    def __del__(self) -> None:
        if self._worker is not None:
            self._worker.wake()

    def _queue(self, call: _Call) -> None:
        with self._mutex:
            self._waiting.append(call)
            worker = self._worker
            if worker is not None:
                worker.wake()
                return
            worker = self._worker = _Worker()
        self._start(worker)

    def _start(self, worker: _Worker) -> None:
        """Outside the mutex, since this lets other greenlets run."""
        try:
            worker.start(self)
        except RuntimeError as error:  # the system has no more threads
            self._end(worker, error)

    def _withdraw(self, call: _Call) -> bool:
        """Whether the call was still waiting; then it is never sent."""
        with self._mutex:
            if call in self._waiting:
                self._waiting.remove(call)
                return True
            return False

    def _give_up(self, call: _Call) -> None:
        """Ends an exchange that nobody waits for any more, and an attempt that takes too long."""
        patience_s = ATTEMPT_TIMEOUTS * self.timeout_s if self._withdraw(call) else self.timeout_s
        now = time.monotonic()
        with self._mutex:
            worker = self._worker
            if worker is None or worker.asleep:
                return
            last = call in worker.batch and all(other.deadline <= now for other in worker.batch)
            if not last and now - worker.began < patience_s:
                return
            successor = self._worker = _Worker() if self._waiting else None
        worker.disconnect()
        if successor is not None:
            self._start(successor)

    def serve(self, worker: _Worker) -> bool:
        """What the worker does until nobody waits; whether it is still the line's."""
        try:
            while (step := self._next(worker)) is not None:
                step(worker)
        except BaseException as error:  # whatever it is, nobody waits for a dead worker
            self._end(worker, error)
            raise
        return self._worker is worker

    def _next(self, worker: _Worker) -> "Callable[[_Worker], None] | None":
        with self._mutex:
            if self._worker is not worker:
                return None
            if not self._waiting:
                worker.asleep = True
                return None
            worker.began = time.monotonic()
            if worker.connection is None or worker.began - worker.used > CHECK_AFTER_IDLE_S:
                return self._reconnect
            worker.batch, self._waiting = self._waiting, []
            for call in worker.batch:
                call.sent = True  # whoever gives up from now on cannot know whether it ran
            return self._exchange

    def _reconnect(self, worker: _Worker) -> None:
        try:
            worker.connect(self._connect)
        except Exception as error:  # noqa: BLE001 - all that wait have waited for this
            self._fail_waiting(worker, error)

    def _exchange(self, worker: _Worker) -> None:
        error: BaseException | None = None
        try:
            worker.exchange()
        except Exception as broken:  # noqa: BLE001 - told to those who wait
            error = broken if self._worker is worker else redis.TimeoutError("no answer in time")
            worker.disconnect()
        self._finish(worker, error)

    def _finish(self, worker: _Worker, error: BaseException | None) -> None:
        batch, worker.batch = worker.batch, []
        for call in batch:
            if error is not None:
                call.fail(error)
            call.done.release()

    def _fail_waiting(self, worker: _Worker, error: BaseException) -> None:
        with self._mutex:
            if self._worker is not worker:
                return
            waiting, self._waiting = self._waiting, []
        for call in waiting:
            call.fail(error)
            call.done.release()

    def _end(self, worker: _Worker, error: BaseException) -> None:
        self._fail_waiting(worker, error)
        self._finish(worker, error)
        with self._mutex:
            if self._worker is worker:
                self._worker = None

    def _start_over(self) -> None:
        """In a forked process: thread, connection and callers are the parent's."""
        self._mutex, self._waiting, self._worker = threading.Lock(), [], None


def _work(found: "weakref.ref[Line]", worker: _Worker) -> None:
    """A worker's life: it ends with its line, or when the line has another one."""
    try:
        while (line := found()) is not None and line.serve(worker):
            del line
            worker.work.acquire()
    finally:
        worker.disconnect()


def in_children(method: Callable[[], None]) -> None:
    """Calls a bound method in every forked process, as long as its object lives."""
    weak = weakref.WeakMethod(method)

    def call() -> None:
        found = weak()
        if found is not None:
            found()

    os.register_at_fork(after_in_child=call)


def _pack(command: Command) -> bytes:
    packed: bytes = pack_command(command)
    return packed
