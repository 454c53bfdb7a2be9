"""Looks names up. A look-up takes no deadline, so it has a thread of its own and its callers stop waiting."""

import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from app.threads import in_children

Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str | int, ...] | tuple[int, bytes]]
"""As getaddrinfo gives it."""

LOOK_UPS: Final = 3
"""At a time, of one `Names`. gevent has ten native threads for all look-ups of a process: while names of
receivers hang, those of Redis and the mail server must still be looked up."""

SLOW_S: Final = 2.0
"""Look-ups that took longer hung, or drag: resolvers ask again after 5 s."""


def look_up(host: str, port: int) -> Sequence[Address]:
    """Raises socket.gaierror."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty label, or one of more than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, "not a name") from error


class Names:
    """Looks names up, for many threads.

    Callers that ask for the same name at the same time share one look-up, so a name that hangs takes one
    place. Of the names that wait, the one whose look-ups took the least time is next, and all slow ones share
    one place. Names that must not wait for others need a `Names` of their own.
    """

    def __init__(
        self, resolve: Callable[[str, int], Sequence[Address]] = look_up, slow_s: float = SLOW_S
    ) -> None:
        """`slow_s`: seconds after which a name is slow."""
        self._resolve = resolve
        self._slow_s = slow_s
        self._start_over()
        in_children(self._start_over)

    def addresses(self, host: str, port: int, timeout_s: float) -> Sequence[Address]:
        """Raises TimeoutError after so many seconds, and OSError: gaierror for a name that is unknown."""
        return self._asked_for((host, port)).result(timeout_s)

    def _start_over(self) -> None:
        """A forked process has none of its parent's look-ups."""
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, int], Future[Sequence[Address]]] = {}
        self._waiting: list[tuple[str, int]] = []
        self._running: list[tuple[str, int]] = []
        self._took_s: dict[tuple[str, int], float] = {}
        """Seconds of a name's look-ups: of the last one in full, of each before it half as much."""

    def _asked_for(self, name: tuple[str, int]) -> Future[Sequence[Address]]:
        with self._lock:
            found = self._asked.get(name)
            if found is None:
                found = self._asked[name] = Future()
                self._waiting.append(name)
                self._begin()
            return found

    def _begin(self) -> None:
        """Begins the look-ups for which there are places. Whoever calls holds the lock."""
        for name in sorted(self._waiting, key=self._slowness_s):
            is_slow_place_taken = any(map(self._is_slow, self._running))
            if len(self._running) == LOOK_UPS or (self._is_slow(name) and is_slow_place_taken):
                return
            self._waiting.remove(name)
            self._running.append(name)  # before it starts: whoever starts it may be killed meanwhile
            found = self._asked[name]
            try:
                threading.Thread(target=self._run, args=(name, found), daemon=True, name="look-up").start()
            except RuntimeError:
                self._running.remove(name)
                del self._asked[name]
                found.set_exception(OSError("the system has no more threads"))

    def _slowness_s(self, name: tuple[str, int]) -> float:
        """A name that was never looked up comes after those that are known to be quick."""
        return self._took_s.get(name, self._slow_s)

    def _is_slow(self, name: tuple[str, int]) -> bool:
        return self._slowness_s(name) > self._slow_s

    def _run(self, name: tuple[str, int], found: Future[Sequence[Address]]) -> None:
        try:
            found.set_result(self._look_up(name))
        except BaseException as error:  # noqa: BLE001 raised again where the name was asked for
            found.set_exception(error)

    def _look_up(self, name: tuple[str, int]) -> Sequence[Address]:
        began = time.monotonic()
        try:
            return self._resolve(*name)
        finally:
            self._end(name, time.monotonic() - began)

    def _end(self, name: tuple[str, int], took_s: float) -> None:
        with self._lock:
            del self._asked[name]
            self._running.remove(name)
            self._took_s[name] = self._took_s.get(name, 0.0) / 2 + took_s
            self._begin()
