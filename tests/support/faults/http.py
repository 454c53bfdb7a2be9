"""Clients that misuse a connection: one, or thousands of them in a thread."""

import select
import socket
import threading
import time
from pathlib import Path
from types import TracebackType

GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
BUFFER_BYTES = 4096
"""What a client that never reads takes all the same."""


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    """The head of a request, with these header lines."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def json_head(path: str, length: int, *lines: str) -> bytes:
    return head(path, "Content-Type: application/json", f"Content-Length: {length}", *lines)


class Crowd:
    """So many clients: each connects, sends `first`, then `drip` again and again, and never reads.

    `alive` counts the connections that the server has not ended.
    """

    def __init__(
        self, port: int, count: int, first: bytes = b"", drip: bytes = b"", every_s: float = 0.2
    ) -> None:
        self._port, self._count, self._first = port, count, first
        self._drip, self._every_s = drip, every_s
        self._ended = threading.Event()
        self._clients: dict[int, socket.socket] = {}
        self.sent_first = self.ended_first = 0
        self._thread = threading.Thread(target=self._run)

    @property
    def alive(self) -> int:
        return len(self._clients)

    def all_there(self) -> bool:
        """Whether all have connected and sent, or were ended before they came to it."""
        return self.came(self._count)

    def came(self, count: int) -> bool:
        """Whether so many have connected; on a busy machine some are ended before they send."""
        return self.sent_first + self.ended_first >= count

    def __enter__(self) -> "Crowd":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        poll = select.epoll()
        for _ in range(self._count):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", self._port))
            self._clients[client.fileno()] = client
            poll.register(client, select.EPOLLOUT | GONE)
        silent = set(self._clients)
        dripped = time.monotonic()
        while not self._ended.is_set():
            for number, event in poll.poll(0.05):
                client = self._clients[number]
                if event & GONE:
                    self.ended_first += number in silent
                    self._drop(poll, client)
                    continue
                silent.discard(number)
                poll.modify(client, GONE)
                self.sent_first += 1
                self._send(poll, client, self._first)
            if self._drip and time.monotonic() - dripped > self._every_s:
                dripped = time.monotonic()
                for client in list(self._clients.values()):
                    self._send(poll, client, self._drip)
        for client in self._clients.values():
            client.close()
        poll.close()

    def _send(self, poll: select.epoll, client: socket.socket, data: bytes) -> None:
        try:
            client.send(data)
        except BlockingIOError:
            pass  # the server takes no more for now
        except OSError:
            self._drop(poll, client)

    def _drop(self, poll: select.epoll, client: socket.socket) -> None:
        self._clients.pop(client.fileno(), None)
        poll.unregister(client)
        client.close()


class RawClient:
    """One connection, and the bytes on it."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0))
        self.answers = self.socket.makefile("rb")

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.answers.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case) and body of the next answer; (0, {}, b"") at the end."""
        try:
            line = self.answers.readline()
        except ConnectionError:
            return 0, {}, b""
        if not line:
            return 0, {}, b""
        headers = {}
        while (field := self.answers.readline().decode().rstrip("\r\n")) != "":
            name, _, value = field.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0)) if body else 0
        return int(line.split()[1]), headers, self.answers.read(length)

    def ended(self) -> bool:
        """Waits until the server has ended the connection."""
        try:
            return self.answers.read(1) == b""
        except ConnectionError:
            return True


def memory_bytes(pid: int) -> int:
    """What a process has of its own (proportional set size)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss")
