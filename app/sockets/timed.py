"""A socket with one deadline over a whole step, with all its bytes: a socket's own time-out starts anew with
each byte that arrives."""

import select
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class TimedSocket:
    """A connection whose waits end with the step. Not to be shared between threads.

    Whatever waits raises TimeoutError at the deadline, and OSError where the connection is broken. What has
    arrived by then can still be read, so callers bound how much they read.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        """`deadline`: monotonic, of the step that connecting has begun."""
        self.sock = sock
        self._deadline = deadline

    def begin(self, timeout_s: float) -> None:
        """Begins a step, which may take so many seconds over all."""
        self._deadline = time.monotonic() + timeout_s

    def hurry(self, timeout_s: float) -> None:
        """What is left of the step may take so many seconds, and the step no longer for that."""
        self._deadline = min(self._deadline, time.monotonic() + timeout_s)

    def encrypt(self, tls: ssl.SSLContext, host: str) -> None:
        """Starts TLS and checks the certificate."""
        self.sock = sock = tls.wrap_socket(self.sock, server_hostname=host, do_handshake_on_connect=False)
        self._when_ready(sock.do_handshake)

    def write(self, octets: bytes) -> None:
        while octets:
            left_s(self._deadline)
            # gevent's sendall asks for the socket's buffer first; one send nearly always takes it all.
            sent = self._when_ready(partial(self.sock.send, octets))
            if not sent:  # so gevent says under TLS that the socket is not ready
                self._wait(select.POLLOUT)
            octets = octets[sent:]

    def read(self, many: int) -> bytes:
        """At most so many bytes, as soon as there are any; none where the other side has closed."""
        return self._when_ready(lambda: self.sock.recv(many))

    def end(self) -> None:
        """Closes the connection."""
        self.sock.close()

    def _when_ready(self, act: Callable[[], T]) -> T:
        """The result of an act that reads or writes. Under TLS one act is many of these, each of which gevent
        would give the whole time-out, so there the socket does not block and the waiting is done here."""
        while True:
            left = self._deadline - time.monotonic()
            self.sock.settimeout(0 if left <= 0 or isinstance(self.sock, ssl.SSLSocket) else left)
            try:
                return act()
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self.sock, event)
        poll.poll(left_s(self._deadline) * 1000)


def left_s(deadline: float) -> float:
    """Seconds until then (monotonic). Raises TimeoutError afterwards."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the step took too long")
    return left
