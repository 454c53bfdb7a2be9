"""Load at a fixed rate: a request goes out when its time has come, whether or not others were answered.

A closed loop such as wrk sends less while the service is slow, and so hides how long people wait (coordinated
omission, Gil Tene). Here a latency counts from the moment at which the request was due.
"""

import random
import selectors
import socket
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True)
class Latencies:
    """What came out of one run: milliseconds from when a request was due to its whole answer."""

    rate: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(eq=False)
class _Connection:
    sock: socket.socket
    received: bytearray = field(default_factory=bytearray)
    due_at: float = 0.0


def open_loop(
    port: int, request: Callable[[int], bytes], rate: float, seconds: float, connections: int = 64
) -> Latencies:
    """Sends `request(n)` at Poisson-distributed times, `rate` a second on average, over kept connections.

    A request that finds no free connection waits for one, and its wait counts.
    """
    selector = selectors.DefaultSelector()
    idle: list[_Connection] = []
    busy = 0
    latencies_ms: list[float] = []
    waiting: deque[float] = deque()
    errors = sent = 0
    started = time.perf_counter()
    next_at, end_at = started, started + seconds
    while next_at < end_at or waiting or busy:
        now = time.perf_counter()
        while next_at <= now and next_at < end_at:
            waiting.append(next_at)
            next_at += random.expovariate(rate)
        while waiting and busy < connections:
            connection = idle.pop() if idle else _connect(port, selector)
            connection.due_at = waiting.popleft()
            connection.sock.sendall(request(sent))
            busy, sent = busy + 1, sent + 1
        pause = max(0.0, next_at - time.perf_counter()) if next_at < end_at else 1.0
        for key, _ in selector.select(pause):
            connection = key.data
            if connection in idle:  # the service closes a connection that rested
                idle.remove(connection)
                selector.unregister(connection.sock)
                connection.sock.close()
                continue
            status = _answer(connection)
            if status:
                latencies_ms.append((time.perf_counter() - connection.due_at) * 1000)
                errors, busy = errors + (status >= 400), busy - 1
                idle.append(connection)
        if time.perf_counter() > end_at + 30:
            raise TimeoutError("the service does not answer")
    for key in list(selector.get_map().values()):
        key.data.sock.close()
    selector.close()
    quantiles = statistics.quantiles(latencies_ms, n=100)
    return Latencies(sent / seconds, quantiles[49], quantiles[98], errors)


def _connect(port: int, selector: selectors.BaseSelector) -> _Connection:
    connection = _Connection(socket.create_connection(("127.0.0.1", port)))
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    selector.register(connection.sock, selectors.EVENT_READ, connection)
    return connection


def _answer(connection: _Connection) -> int:
    """The status of the answer once all of it is there, else 0. Raises ConnectionError."""
    chunk = connection.sock.recv(65_536)
    if not chunk:
        raise ConnectionError("the service closed a connection")
    connection.received += chunk
    head, found, body = bytes(connection.received).partition(END_OF_HEAD)
    if not found:
        return 0
    length = next(
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    if len(body) < length:
        return 0
    connection.received.clear()
    return int(head[9:12])
