"""One exchange with a Redis server: the commands of some callers in one write, their answers in one read.

Every write to a socket costs as much as the rest of a script call, so commands that come at the same time
travel together (implicit pipelining). May import `app.storage.faults`.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any

import redis
from hiredis import pack_command
from redis.connection import AbstractConnection
from redis.exceptions import MasterDownError, ReadOnlyError, ResponseError

from app.storage.faults import Broken, TooFewReplicas

Command = tuple[Any, ...]

WAIT_SHARE = 0.9
"""Of the time that is left: the answer to WAIT must come before the caller gives up."""

NOT_THE_MASTER = (ReadOnlyError, MasterDownError)


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

    Has no time-out: the watchdog ends the connection instead. Raises what breaks the connection.
    """
    packed = [call.packed for call in calls]
    replicas = max([call.replicas for call in calls])
    if replicas:
        left_s = min([call.deadline for call in calls]) - time.monotonic()
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
