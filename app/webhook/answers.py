"""What a receiver's answer means, or that there is none."""

import errno
import socket
import ssl
from typing import Final

from app.sockets.timed import distrust

GONE: Final = 410


class Gone(Exception):
    """The receiver wants no more events (410)."""


class NotTaken(Exception):
    """The event was not taken, or may not have been. `code`: why, in fixed words or with the number
    of the status; nothing of what a receiver has said, or of its URL, is in it."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def judge(status: int) -> None:
    """Returns where the event was taken. Raises Gone, or NotTaken with `status 500`, `redirect 302` …"""
    if status == GONE:
        raise Gone
    if not 200 <= status < 300:
        raise NotTaken(f"{'redirect' if 300 <= status < 400 else 'status'} {status}")


def fault(error: Exception) -> NotTaken:
    """Why there is no answer."""
    match error:
        case ssl.SSLCertVerificationError():
            return NotTaken(distrust(error))
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return NotTaken("broken")
        case OSError(errno=errno.EHOSTUNREACH | errno.ENETUNREACH):
            return NotTaken("unreachable")
    return NotTaken(next((code for kind, code in _CODES.items() if isinstance(error, kind)), "broken"))


_CODES: dict[type[Exception], str] = {
    TimeoutError: "timeout",
    ConnectionRefusedError: "refused",
    socket.gaierror: "unknown host",
    ssl.SSLError: "TLS failed",
}
