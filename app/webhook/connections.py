"""Connections to receivers: how one is opened, and those that rest between two requests."""

import ssl
import threading
import time
from typing import Final, NamedTuple

from app.sockets.names import Names
from app.sockets.timed import connected
from app.webhook.addresses import Receiver
from app.webhook.exchange import Stream

MAX_IDLE_S: Final = 4.0
"""Node, the shortest of the usual servers, closes a connection that has rested for 5 s."""

MAX_AGE_S: Final = 60.0
"""Then a connection is made anew, so that changed addresses take effect."""

MAX_OF_ONE: Final = 4
MAX_KEPT: Final = 64
"""Of one receiver, and of all. The one that has rested longest goes."""


def opened(receiver: Receiver, names: Names, tls: ssl.SSLContext, deadline: float) -> Stream:
    """A connection, by the deadline (monotonic). Raises NotTaken, TimeoutError, OSError.

    The name is looked up once, and the connection goes to an address that was checked: a moment later the
    name may have others (DNS rebinding). Where one of several is forbidden, all are.
    """
    addresses = names.addresses(receiver.host, receiver.port, deadline - time.monotonic())
    for *_, where in addresses:
        receiver.check(str(where[0]))
    stream = Stream(connected(addresses, deadline), deadline)
    try:
        if receiver.secure:
            stream.encrypt(tls, receiver.host)
    except BaseException:
        stream.end()
        raise
    return stream


class Resting(NamedTuple):
    """A connection that is not in use. `since`: monotonic."""

    receiver: Receiver
    stream: Stream
    since: float


class Kept:
    """Connections that rest. For many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resting: list[Resting] = []
        self._closed = False

    def take(self, receiver: Receiver) -> Stream | None:
        """One that still seems well; None where there is none."""
        self.close_idle()
        while (found := self._newest(receiver)) is not None:
            if found.quiet():
                return found
            found.end()
        return None

    def give(self, receiver: Receiver, stream: Stream) -> None:
        """Keeps a connection, or closes it where there are enough."""
        now = time.monotonic()
        with self._lock:
            if self._closed or now - stream.opened > MAX_AGE_S:
                stream.end()
                return
            self._resting.append(Resting(receiver, stream, now))
            of_one = [each for each in self._resting if each.receiver == receiver]
            for surplus in of_one[:-MAX_OF_ONE] or self._resting[:-MAX_KEPT]:
                self._end(surplus)

    def close_idle(self) -> None:
        """Closes what has rested for too long."""
        now = time.monotonic()
        with self._lock:
            for each in [each for each in self._resting if now - each.since > MAX_IDLE_S]:
                self._end(each)

    def close(self) -> None:
        """Closes all, and keeps none any more."""
        with self._lock:
            self._closed = True
            for each in list(self._resting):
                self._end(each)

    def _newest(self, receiver: Receiver) -> Stream | None:
        with self._lock:
            for each in reversed(self._resting):
                if each.receiver == receiver:
                    self._resting.remove(each)
                    return each.stream
        return None

    def _end(self, resting: Resting) -> None:
        self._resting.remove(resting)
        resting.stream.end()
