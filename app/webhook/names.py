"""Look-ups of receivers' names. They know no deadline, so others must not wait behind them."""

import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str | int, ...] | tuple[int, bytes]]
"""As getaddrinfo gives it."""

LOOK_UPS: Final = 3
"""At a time. gevent has ten native threads for all look-ups of a process: while names of receivers hang,
those of Redis and the mail server must still be looked up."""


def look_up(host: str, port: int) -> Sequence[Address]:
    """Raises socket.gaierror."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty label, or one of more than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, "not a name") from error


class Names:
    """Looks names up, each once at a time: who asks for one that is being looked up waits for that, so that a
    name that hangs takes one place, however often it is asked for."""

    def __init__(self, resolve: Callable[[str, int], Sequence[Address]] = look_up) -> None:
        self._resolve = resolve
        self._places = threading.Semaphore(LOOK_UPS)
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, int], Future[Sequence[Address]]] = {}

    def addresses(self, host: str, port: int, timeout_s: float) -> Sequence[Address]:
        """Raises TimeoutError after so many seconds, and OSError: gaierror for a name that is unknown."""
        return self._asked_for((host, port)).result(timeout_s)

    def _asked_for(self, name: tuple[str, int]) -> Future[Sequence[Address]]:
        with self._lock:
            found = self._asked.get(name)
            if found is None:
                found = Future()
                self._start(name, found)
                self._asked[name] = found
            return found

    def _start(self, name: tuple[str, int], found: Future[Sequence[Address]]) -> None:
        thread = threading.Thread(target=self._run, args=(name, found), daemon=True, name="look-up")
        try:
            thread.start()
        except RuntimeError as error:
            raise OSError("the system has no more threads") from error

    def _run(self, name: tuple[str, int], found: Future[Sequence[Address]]) -> None:
        with self._places:
            try:
                addresses = self._resolve(*name)
            except BaseException as error:  # noqa: BLE001 raised again where the name was asked for
                self._forget(name)
                found.set_exception(error)
            else:
                self._forget(name)
                found.set_result(addresses)

    def _forget(self, name: tuple[str, int]) -> None:
        with self._lock:
            del self._asked[name]
