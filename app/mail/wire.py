"""The bytes between us and a mail server: every step ends at its deadline, and no reply fills memory.

A deadline counts over the whole step, with all its lines and all its bytes; a socket's own time-out starts
anew with each byte that arrives. Imports of the app only `threads` and the room's `replies`.
"""

import contextlib
import re
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Self, TypeVar

from app.mail.replies import Reply
from app.threads import within

T = TypeVar("T")

Dial = Callable[[tuple[str, int], float], socket.socket]
"""Looks a name up and connects, in about so many seconds for each of its addresses."""

MAX_REPLY = 16_384
"""Bytes in one reply, all its lines together. Real ones have less than 2,000."""

_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*)|\r?)\n")


class OutOfStep(OSError):
    """The server said something that is no reply, or something that nobody asked for."""


class Wire:
    """A connection to a mail server. Not to be shared between threads.

    Its methods raise TimeoutError at the deadline and OSError where the connection is broken.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    @classmethod
    def connect(
        cls,
        server: str,
        port: int,
        timeout_s: float,
        tls: ssl.SSLContext | None = None,
        dial: Dial = socket.create_connection,
    ) -> Self:
        """Connects; the look-up of the name and the TLS handshake are part of the step. A connection that
        comes about too late is closed."""
        deadline = time.monotonic() + timeout_s
        wire = cls(within(timeout_s, lambda: dial((server, port), timeout_s), discard=socket.socket.close))
        try:
            if tls is not None:
                wire.encrypt(tls, server, deadline - time.monotonic())
        except BaseException:
            wire.close()
            raise
        return wire

    def encrypt(self, tls: ssl.SSLContext, server: str, timeout_s: float) -> None:
        """Starts TLS and checks the certificate.

        Whatever the server said before belongs to nobody: somebody may have put it there (RFC 3207 §4.1).
        """
        if self._buffer:
            raise OutOfStep("more than a reply before TLS")
        self.sock = sock = tls.wrap_socket(self.sock, server_hostname=server, do_handshake_on_connect=False)
        self._by(time.monotonic() + timeout_s, sock.do_handshake)

    def write(self, octets: bytes, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while octets:
            self.sock.settimeout(_left(deadline))
            # gevent's sendall asks for the socket's buffer first; one send nearly always takes it all.
            octets = octets[self.sock.send(octets) :]

    def reply(self, timeout_s: float) -> Reply:
        """The next reply with all its lines. Raises OutOfStep for what is none."""
        deadline = time.monotonic() + timeout_s
        lines: list[bytes] = []
        code, read = b"", 0
        while True:
            end = self._buffer.find(b"\n") + 1
            if not end:
                if read + len(self._buffer) > MAX_REPLY:
                    raise OutOfStep("a reply without end")
                self._buffer += self._receive(deadline)
                continue
            found = _LINE.fullmatch(self._buffer, 0, end)
            self._buffer = self._buffer[end:]
            read += end
            if found is None or found[1] != (code or found[1]) or read > MAX_REPLY:
                raise OutOfStep("not a reply")
            code = found[1]
            lines.append((found[3] or b"").strip())
            if found[2] != b"-":
                return Reply(int(code), lines)

    def quiet(self) -> bool:
        """True when the connection is up and the server has said nothing that is still to be read."""
        if self._buffer:
            return False
        self.sock.settimeout(0)
        try:
            self._buffer = self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def close(self, farewell: bytes = b"") -> None:
        """Ends the connection. The farewell is written if the socket takes it at once."""
        with contextlib.suppress(OSError):
            if farewell:
                self.sock.settimeout(0)
                self.sock.send(farewell)
        self.sock.close()

    def _receive(self, deadline: float) -> bytes:
        octets = self._by(deadline, self._recv)
        if not octets:
            raise ConnectionResetError("the server closed the connection")
        return octets

    def _recv(self) -> bytes:
        return self.sock.recv(4096)

    def _by(self, deadline: float, step: Callable[[], T]) -> T:
        """The result of a step that reads. Under TLS one step is many reads, each of which gevent would give
        the whole time-out, so there the socket does not block and the waiting is done here."""
        while True:
            left_s = _left(deadline)
            self.sock.settimeout(0 if isinstance(self.sock, ssl.SSLSocket) else left_s)
            try:
                return step()
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, left_s)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, left_s)

    def _wait(self, event: int, timeout_s: float) -> None:
        poll = select.poll()
        poll.register(self.sock, event)
        poll.poll(timeout_s * 1000)


def _left(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("the step took too long")
    return left_s
