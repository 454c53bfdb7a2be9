"""The bytes between us and a mail server: writes commands, reads replies, notices bytes that came unasked.

No reply fills memory. Imports of the app only `sockets` and the room's `replies`.
"""

import array
import contextlib
import fcntl
import re
import socket
import ssl
import termios

from app.mail.replies import Reply
from app.sockets.timed import TimedSocket

MAX_REPLY = 16_384
"""Bytes in one reply, all its lines together. Real ones have less than 2,000."""

_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*)|\r?)\n")


class OutOfStep(OSError):
    """The server sent something that is no reply, or sent it unasked."""


class Wire(TimedSocket):
    """A connection to a mail server."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__(sock, deadline)
        self._buffer = b""
        self._unread = array.array("i", [0])

    def encrypt(self, tls: ssl.SSLContext, host: str) -> None:
        """Starts TLS and checks the certificate.

        Refuses bytes from before TLS beyond the reply: an attacker may have put them there (RFC 3207 §4.1).
        """
        if self._buffer:
            raise OutOfStep("more than a reply before TLS")
        super().encrypt(tls, host)

    def reply(self) -> Reply:
        """The next reply with all its lines. Raises OutOfStep for anything else."""
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
        """True when there is nothing to read. False also where the connection is known to be broken."""
        if self._buffer:
            return False
        fcntl.ioctl(self.sock, termios.FIONREAD, self._unread)  # a tenth of a recv that finds nothing
        decrypted = self.sock.pending() if isinstance(self.sock, ssl.SSLSocket) else 0
        if not (self._unread[0] or decrypted):
            return True
        self.begin(0)
        try:
            self._buffer = self.read(1)
        except TimeoutError:  # TLS' own messages
            return True
        except OSError:
            return False
        return False

    def end(self, farewell: bytes = b"") -> None:
        """Closes the connection, after the farewell if the socket takes that at once."""
        with contextlib.suppress(OSError):
            if farewell:
                self.sock.settimeout(0)
                self.sock.send(farewell)
        super().end()

    def _line(self, room: int) -> bytes:
        """The next line with its end, of at most `room` bytes."""
        while not (end := self._buffer.find(b"\n") + 1):
            if len(self._buffer) > room:
                break
            octets = self.read(4096)
            if not octets:
                raise ConnectionResetError("the server closed the connection")
            self._buffer += octets
        if not 0 < end <= room:
            raise OutOfStep("a reply without end")
        line, self._buffer = self._buffer[:end], self._buffer[end:]
        return line
