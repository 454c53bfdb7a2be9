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
"""A look-up that took longer hung: resolvers ask again after 5 s."""


def look_up(host: str, port: int) -> Sequence[Address]:
    """Raises socket.gaierror."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty label, or one of more than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, "not a name") from error


class Names:
    """Looks names up, for many threads.

    Callers that ask for the same name at the same time share one look-up, so a name that hangs takes one
    place. All names whose last look-up hung share one place. Names that must not wait for others need a
    `Names` of their own.
    """

    def __init__(
        self, resolve: Callable[[str, int], Sequence[Address]] = look_up, slow_s: float = SLOW_S
    ) -> None:
        """`slow_s`: seconds after which a look-up hung."""
        self._resolve = resolve
        self._slow_s = slow_s
        self._start_over()
        in_children(self._start_over)

    def addresses(self, host: str, port: int, timeout_s: float) -> Sequence[Address]:
        """Raises TimeoutError after so many seconds, and OSError: gaierror for a name that is unknown."""
        return self._asked_for((host, port)).result(timeout_s)

    def _start_over(self) -> None:
        """A forked process has none of its parent's look-ups."""
        self._slow: set[tuple[str, int]] = set()
        self._slow_place = threading.Semaphore(1)
        self._places = threading.Semaphore(LOOK_UPS - 1)
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, int], Future[Sequence[Address]]] = {}

    def _asked_for(self, name: tuple[str, int]) -> Future[Sequence[Address]]:
        with self._lock:
            found = self._asked.get(name)
            if found is None:
                found = Future()
                thread = threading.Thread(target=self._run, args=(name, found), daemon=True, name="look-up")
                try:
                    thread.start()
                except RuntimeError as error:
                    raise OSError("the system has no more threads") from error
                self._asked[name] = found
            return found

    def _run(self, name: tuple[str, int], found: Future[Sequence[Address]]) -> None:
        try:
            found.set_result(self._look_up(name))
        except BaseException as error:  # noqa: BLE001 raised again where the name was asked for
            found.set_exception(error)

    def _look_up(self, name: tuple[str, int]) -> Sequence[Address]:
        with self._slow_place if name in self._slow else self._places:
            began = time.monotonic()
            try:
                return self._resolve(*name)
            finally:
                self._end(name, time.monotonic() - began)

    def _end(self, name: tuple[str, int], took_s: float) -> None:
        with self._lock:
            del self._asked[name]
            if took_s > self._slow_s:
                self._slow.add(name)
            else:
                self._slow.discard(name)
