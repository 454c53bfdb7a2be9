"""The bytes between us and a receiver: every wait ends at the deadline, and no answer fills memory.

A deadline counts over the whole attempt; a socket's own time-out starts anew with each byte that arrives.
"""

import io
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")

MAX_ANSWER = 65_536
"""Bytes of one answer, head and body together. Nothing in it but the status matters."""

BUFFER = 4096


class TooLong(OSError):
    """The answer has more than MAX_ANSWER bytes."""


class Stream:
    """A connection to a receiver, and what http.client uses of a socket. Not to be shared between threads.

    Whatever waits raises TimeoutError at the deadline, and OSError where the connection is broken. `let_go`:
    http.client has closed it, because nothing may follow the last answer. `ended`: the receiver has closed.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        """`deadline`: monotonic, as in `begin`."""
        sock.setblocking(False)
        self._sock = sock
        self._reader = _Reader(_Source(self._receive), BUFFER)
        self.let_go = self.ended = False
        self.opened = time.monotonic()
        self.begin(deadline)

    def begin(self, deadline: float) -> None:
        """Begins an attempt, which ends then."""
        self._deadline = deadline
        self._room = MAX_ANSWER

    def hurry(self, timeout_s: float) -> None:
        """What is still to come may take so many seconds, and the attempt no longer for that."""
        self._deadline = min(self._deadline, time.monotonic() + timeout_s)

    def encrypt(self, tls: ssl.SSLContext, host: str) -> None:
        """Starts TLS and checks the certificate."""
        self._sock = sock = tls.wrap_socket(self._sock, server_hostname=host, do_handshake_on_connect=False)
        self._when_ready(sock.do_handshake)

    def sendall(self, octets: bytes) -> None:
        """Waits in the socket: gevent's TLS does not say that it was not ready to write."""
        unsent = memoryview(octets)
        while unsent:
            self._sock.settimeout(self._left_s())
            unsent = unsent[self._sock.send(unsent) :]
        self._sock.setblocking(False)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 http.client only reads
        """The same for each answer, so that what it has read ahead is not lost."""
        return self._reader

    def close(self) -> None:
        """For http.client: it needs the connection no more, but for the answer it is reading."""
        self.let_go = True

    def end(self) -> None:
        """Closes the connection."""
        self._sock.close()

    def quiet(self) -> bool:
        """True when the receiver has neither closed the connection nor said what nobody has asked for."""
        self.begin(time.monotonic())
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
        many = min(len(into), self._room)
        count = self._when_ready(lambda: self._sock.recv_into(into, many))
        self._room -= count
        self.ended = count == 0
        return count

    def _when_ready(self, act: Callable[[], T]) -> T:
        """The result of an act that reads, and does not block, as soon as there is something to read."""
        while True:
            try:
                return act()
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self._sock, event)
        poll.poll(self._left_s() * 1000)

    def _left_s(self) -> float:
        """Seconds until the deadline. Raises TimeoutError afterwards."""
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the attempt took too long")
        return left_s


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
