"""The floor: a gevent server that has the wire traffic of a registration, and nothing else.

HTTP is read up to the end of the body and answered with fixed bytes; Redis gets the two script calls of a
registration over one kept connection; the mail server gets one pipelined conversation over a kept one.
`python -m benchmarks.floor PORT REDIS_PORT SMTP_PORT`. What the service takes beyond it is its own.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from gevent import socket
from gevent.lock import Semaphore
from gevent.pool import Pool
from gevent.server import StreamServer

BODY = b'{"id":"' + b"x" * 26 + b'","email":"a1.1@example.com","status":"registered","delivery":"sent"}\n'
ANSWER = (
    b"HTTP/1.1 201 CREATED\r\nServer: floor\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
    b"Connection: keep-alive\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nX-Request-ID: %s\r\n\r\n%s"
) % (len(BODY), b"0" * 32, BODY)
MAIL = b"Subject: number\r\n\r\n" + b"x" * 70 * 40 + b"\r\n.\r\n"
SCRIPT = b"return {'registered', 1, 1800000000000, 1}"


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


CALL = command(b"EVAL", SCRIPT, b"0", *[b"x" * 40] * 16)


class Kept:
    """Kept connections of one kind: taken from a stack, opened where none rests."""

    def __init__(self, port: int, greeting: bytes) -> None:
        self._port, self._greeting = port, greeting
        self._resting: list[socket.socket] = []
        self._bound = Semaphore(32)

    @contextmanager
    def one(self) -> Iterator[socket.socket]:
        with self._bound:
            connection = self._resting.pop() if self._resting else self._open()
            yield connection
            self._resting.append(connection)

    def _open(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port))
        if self._greeting:
            connection.recv(4096)
            connection.sendall(self._greeting)
            connection.recv(4096)
        return connection


def serve(port: int, redis_port: int, smtp_port: int) -> None:
    redis, smtp = Kept(redis_port, b""), Kept(smtp_port, b"EHLO floor\r\n")

    def register() -> None:
        with redis.one() as connection:
            connection.sendall(CALL)
            connection.recv(4096)
        with smtp.one() as connection:
            connection.sendall(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n")
            received = b""
            while b"354" not in received:
                received += connection.recv(4096)
            connection.sendall(MAIL)
            connection.recv(4096)
        with redis.one() as connection:
            connection.sendall(CALL)
            connection.recv(4096)

    def talk(client: socket.socket, _: object) -> None:
        received = b""
        with suppress(ConnectionResetError):
            while chunk := client.recv(65_536):
                received += chunk
                head, found, body = received.partition(b"\r\n\r\n")
                if found and len(body) >= int(head.lower().partition(b"content-length:")[2].split()[0]):
                    received = b""
                    register()
                    client.sendall(ANSWER)

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(2048)
    StreamServer(listener, talk, spawn=Pool(2000)).serve_forever()


if __name__ == "__main__":
    ports = [int(text) for text in sys.argv[1:]]
    for _ in range((os.cpu_count() or 1) - 1):
        if os.fork() == 0:
            break
    serve(*ports)
