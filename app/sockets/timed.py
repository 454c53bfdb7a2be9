"""Sockets with one deadline over a whole step: a socket's own time-out starts anew with each byte."""

import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from app.sockets.names import Address

X509_EXPIRED: Final = 10
X509_NAME_MISMATCH: Final = (62, 64)
"""OpenSSL's X509_V_ERR codes."""

T = TypeVar("T")


def connected(addresses: Sequence[Address], deadline: float) -> socket.socket:
    """A connection to the first address that answers, by the deadline (monotonic). Raises OSError.

    Each address that is silent gets its share of the time only: often IPv6 is announced and does not work.
    """
    fault = OSError("no address")
    for place, address in enumerate(addresses):
        share_s = left_s(deadline) / (len(addresses) - place)
        try:
            return _connect(address, share_s)
        except OSError as error:
            fault = error
    raise fault


def _connect(address: Address, timeout_s: float) -> socket.socket:
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(timeout_s)
        sock.connect(where)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a request may be several writes
    except BaseException:
        sock.close()
        raise
    return sock


class TimedSocket:
    """A connection whose waits end with the step. Not to be shared between threads.

    Its methods raise TimeoutError at the deadline, and OSError where the connection is broken. What has
    arrived by the deadline can still be read, so callers bound how much they read.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        """`deadline`: monotonic, of the step that connecting has begun."""
        self.sock = sock
        self._deadline = deadline

    def begin(self, timeout_s: float) -> None:
        """Begins a step, which may take so many seconds in all."""
        self._deadline = time.monotonic() + timeout_s

    def hurry(self, timeout_s: float) -> None:
        """Ends the step in so many seconds, if it does not end earlier."""
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
        """The result of an act that reads or writes. Under TLS one act is many reads and writes, and gevent
        would give each of them the whole time-out. There the socket does not block, and this method waits."""
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
    """Seconds until the deadline (monotonic). Raises TimeoutError after it."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the step took too long")
    return left


def distrust(error: ssl.SSLCertVerificationError) -> str:
    """Why a certificate is not trusted, in fixed words."""
    if error.verify_code == X509_EXPIRED:
        return "certificate expired"
    if error.verify_code in X509_NAME_MISMATCH:
        return "certificate for another name"
    return "certificate refused"
