"""A way to a server that cuts, freezes, drips and splits.

with Proxy(valkey.port) as proxy:
    storage = Storage(f"redis://127.0.0.1:{proxy.port}/0", 1.0)
    with proxy.dripping():
        ...
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

CHUNK = 65_536
POLL_S = 0.02


class Proxy:
    """Takes connections at `port` of 127.0.0.1 and passes bytes to and from a server."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._frozen = False
        self._pause_s: float | None = None
        self.accepted = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Ends every connection."""
        ended, self._open = self._open, []
        for connection in ended:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Takes connections and bytes, and passes nothing on until this ends."""
        self._frozen = True
        try:
            yield
        finally:
            self._frozen = False

    @contextmanager
    def dripping(self, pause_s: float = 0.1) -> Iterator[None]:
        """Answers come byte by byte, with a pause before each; without one they come in pieces."""
        self._pause_s = pause_s
        try:
            yield
        finally:
            self._pause_s = None

    def splitting(self) -> contextlib.AbstractContextManager[None]:
        """Answers come in pieces of one byte."""
        return self.dripping(0.0)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                return
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted += 1
            self._open += [client, server]
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                while self._frozen:
                    time.sleep(POLL_S)
                if answers and self._pause_s is not None:
                    self._drip(target, data)
                else:
                    target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _drip(self, target: socket.socket, data: bytes) -> None:
        for index in range(len(data)):
            if self._pause_s is None:
                target.sendall(data[index:])
                return
            time.sleep(self._pause_s)
            target.sendall(data[index : index + 1])
