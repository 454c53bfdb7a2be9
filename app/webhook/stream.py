"""The bytes between us and a receiver, as http.client reads and writes them. No answer fills memory."""

import io
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.sockets.timed import TimedSocket

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_ANSWER = 65_536
"""Bytes of one answer, head and body together. Nothing in it but the status matters."""

BUFFER = 4096


class TooLong(OSError):
    """The answer has more than MAX_ANSWER bytes."""


class Stream(TimedSocket):
    """A connection to a receiver, and what http.client uses of a socket. A step is a whole attempt.

    `let_go`: http.client has closed it, because nothing may follow the last answer. `ended`: the receiver has
    closed. `opened`: monotonic.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__(sock, deadline)
        self._reader = _Reader(_Source(self._receive), BUFFER)
        self._room = MAX_ANSWER
        self.let_go = self.ended = False
        self.opened = time.monotonic()

    def begin(self, timeout_s: float) -> None:
        super().begin(timeout_s)
        self._room = MAX_ANSWER

    def sendall(self, octets: bytes) -> None:
        self.write(octets)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 http.client only reads
        """The same for each answer, so that what it has read ahead is not lost."""
        return self._reader

    def close(self) -> None:
        """For http.client: it needs the connection no more, but for the answer it is reading."""
        self.let_go = True

    def quiet(self) -> bool:
        """True when the receiver has neither closed the connection nor said what nobody has asked for."""
        self.begin(0)
        try:
            self._reader.peek(1)
        except TimeoutError:
            return True
        except OSError:
            pass
        return False

    def _receive(self, into: memoryview) -> int:
        if not self._room:
            raise TooLong("more than an answer")
        octets = self.read(min(len(into), self._room))
        into[: len(octets)] = octets
        self._room -= len(octets)
        self.ended = not octets
        return len(octets)


class _Source(io.RawIOBase):
    """Where a reader's bytes come from."""

    def __init__(self, receive: Callable[[memoryview], int]) -> None:
        self._receive = receive

    def readable(self) -> bool:
        return True

    def readinto(self, into: "WriteableBuffer") -> int:
        return self._receive(memoryview(into))


class _Reader(io.BufferedReader):
    """Survives the answers that are read from it."""

    def close(self) -> None:
        """http.client closes its file after each answer."""
