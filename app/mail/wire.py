"""The bytes between us and a mail server: every step ends at its deadline, and no reply fills memory.

A deadline counts over the whole step, with all its lines and all its bytes; a socket's own time-out starts
anew with each byte that arrives. Imports of the app only `threads` and the room's `replies`.
"""

import array
import contextlib
import fcntl
import re
import select
import socket
import ssl
import termios
import time
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from app.mail.replies import Reply
from app.threads import Steps

T = TypeVar("T")

LOOK_UPS = Steps(3)
"""Of the mail server's name. gevent has ten native threads for all look-ups of a process: while this name
hangs, Redis' name must still be looked up."""

MAX_REPLY = 16_384
"""Bytes in one reply, all its lines together. Real ones have less than 2,000."""

_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*)|\r?)\n")


Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str | int, ...] | tuple[int, bytes]]
"""As getaddrinfo gives it."""


class OutOfStep(OSError):
    """The server said something that is no reply, or something that nobody asked for."""


class Wire:
    """A connection to a mail server. Not to be shared between threads.

    Whatever waits raises TimeoutError at the deadline of the step, which `connect` or the last `begin` has
    set, and OSError where the connection is broken.
    """

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self.sock = sock
        self._buffer = b""
        self._unread = array.array("i", [0])
        self.begin(timeout_s)

    @classmethod
    def connect(cls, server: str, port: int, timeout_s: float) -> Self:
        """Looks the name up and connects to the first of its addresses that answers, which begins a step that
        goes on with what comes next."""
        deadline = time.monotonic() + timeout_s

        def look_up() -> Sequence[Address]:
            return socket.getaddrinfo(server, port, type=socket.SOCK_STREAM)

        try:
            addresses = LOOK_UPS.within(timeout_s, look_up)
        except UnicodeError as error:  # an empty label, or one of more than 63 characters
            raise socket.gaierror(socket.EAI_NONAME, "not a name") from error
        fault = OSError("no address")
        for address in addresses:
            try:
                return cls(_connect(address, deadline), deadline - time.monotonic())
            except OSError as error:
                fault = error
        raise fault

    def begin(self, timeout_s: float) -> None:
        """Begins a step, which may take so many seconds over all."""
        self._deadline = time.monotonic() + timeout_s

    def encrypt(self, tls: ssl.SSLContext, server: str) -> None:
        """Starts TLS and checks the certificate.

        Whatever the server said before belongs to nobody: somebody may have put it there (RFC 3207 §4.1).
        """
        if self._buffer:
            raise OutOfStep("more than a reply before TLS")
        self.sock = sock = tls.wrap_socket(self.sock, server_hostname=server, do_handshake_on_connect=False)
        self._read(sock.do_handshake)

    def write(self, octets: bytes) -> None:
        while octets:
            self.sock.settimeout(self._left_s())
            # gevent's sendall asks for the socket's buffer first; one send nearly always takes it all.
            octets = octets[self.sock.send(octets) :]

    def reply(self) -> Reply:
        """The next reply with all its lines. Raises OutOfStep for what is none."""
        lines: list[bytes] = []
        code, room = b"", MAX_REPLY
        while True:
            line = self._line(room)
            room -= len(line)
            found = _LINE.fullmatch(line)
            if found is None or found[1] != (code or found[1]):
                raise OutOfStep("not a reply")
            code = found[1]
            lines.append((found[3] or b"").strip())
            if found[2] != b"-":
                return Reply(int(code), lines)

    def quiet(self) -> bool:
        """True when the server has said nothing that is still to be read; False where the connection is known
        to be broken, too."""
        if self._buffer:
            return False
        fcntl.ioctl(self.sock, termios.FIONREAD, self._unread)  # a tenth of a recv that finds nothing
        decrypted = self.sock.pending() if isinstance(self.sock, ssl.SSLSocket) else 0
        if not (self._unread[0] or decrypted):
            return True
        self.sock.settimeout(0)
        try:
            self._buffer = self.sock.recv(1)
        except ssl.SSLWantReadError:  # TLS' own messages
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

    def _line(self, room: int) -> bytes:
        """The next line with its end, of at most `room` bytes."""
        while not (end := self._buffer.find(b"\n") + 1):
            if len(self._buffer) > room:
                break
            octets = self._read(self._recv)
            if not octets:
                raise ConnectionResetError("the server closed the connection")
            self._buffer += octets
        if not 0 < end <= room:
            raise OutOfStep("a reply without end")
        line, self._buffer = self._buffer[:end], self._buffer[end:]
        return line

    def _recv(self) -> bytes:
        return self.sock.recv(4096)

    def _read(self, act: Callable[[], T]) -> T:
        """The result of an act that reads. Under TLS one act is many reads, each of which gevent would give
        the whole time-out, so there the socket does not block and the waiting is done here."""
        while True:
            left_s = self._left_s()
            self.sock.settimeout(0 if isinstance(self.sock, ssl.SSLSocket) else left_s)
            try:
                return act()
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, left_s)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, left_s)

    def _wait(self, event: int, timeout_s: float) -> None:
        poll = select.poll()
        poll.register(self.sock, event)
        poll.poll(timeout_s * 1000)

    def _left_s(self) -> float:
        return _left_s(self._deadline)


def _connect(address: Address, deadline: float) -> socket.socket:
    """Connected by the deadline (monotonic). Raises OSError."""
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(_left_s(deadline))
        sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock


def _left_s(deadline: float) -> float:
    """Seconds until then. Raises TimeoutError afterwards."""
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("the step took too long")
    return left_s
