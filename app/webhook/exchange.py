"""One request and its answer over a connection, by Python's http.client. No answer fills memory."""

import http.client
import io
import socket
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from app.sockets.timed import TimedSocket
from app.webhook.signing import Message

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_ANSWER: Final = 65_536
"""Bytes of one answer, head and body together. Nothing in it but the status matters."""

BODY_S: Final = 1.0
"""For the body of an answer, after its head. We need nothing in it, and read it only so that the connection
can be used again."""

BUFFER: Final = 4096


class Answer(NamedTuple):
    """`reusable`: the answer has ended, and another request may follow."""

    status: int
    reusable: bool


def post(stream: "Stream", url: str, message: Message) -> Answer:
    """Posts a message, and returns the answer to it. Redirects are not followed.

    Raises TimeoutError, OSError, HTTPException or ValueError where there is no answer with a whole head.
    """
    parts = urlsplit(url)
    target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    connection = _Connection(stream)
    connection.request("POST", target, message.body, {"Host": parts.netloc} | message.headers)
    with connection.getresponse() as response:
        if stream.ended:  # http.client takes it for the end of the head
            raise ConnectionResetError("closed within the head")
        return Answer(response.status, _is_read_to_its_end(response, stream))


def _is_read_to_its_end(response: HTTPResponse, stream: "Stream") -> bool:
    stream.hurry(BODY_S)
    try:
        response.read(MAX_ANSWER)
    except (OSError, HTTPException, ValueError):
        return False
    return response.isclosed() and not (stream.let_go or stream.ended)


class TooLong(OSError):
    """The answer has more than MAX_ANSWER bytes."""


class Stream(TimedSocket):
    """A connection to a receiver, and what http.client uses of a socket. A step is a whole attempt.

    `let_go`: http.client has closed it, because nothing may follow the last answer. `ended`: the receiver has
    closed. `opened`: monotonic.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__(sock, deadline)
        self._reader = _Reader(_Source(self._receive), BUFFER)
        self._room = MAX_ANSWER
        self.let_go = self.ended = False
        self.opened = time.monotonic()

    def begin(self, timeout_s: float) -> None:
        super().begin(timeout_s)
        self._room = MAX_ANSWER

    def sendall(self, octets: bytes) -> None:
        self.write(octets)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 http.client only reads
        """The same for each answer, so that what it has read ahead is not lost."""
        return self._reader

    def close(self) -> None:
        """For http.client, which closes its socket before it has read the last answer."""
        self.let_go = True

    def quiet(self) -> bool:
        """True when the receiver has neither closed the connection nor sent anything unasked."""
        self.begin(0)
        try:
            self._reader.peek(1)
        except TimeoutError:
            return True
        except OSError:
            pass
        return False

    def _receive(self, into: memoryview) -> int:
        if not self._room:
            raise TooLong("more than an answer")
        octets = self.read(min(len(into), self._room))
        into[: len(octets)] = octets
        self._room -= len(octets)
        self.ended = not octets
        return len(octets)


class _Connection(http.client.HTTPConnection):
    """http.client over a stream."""

    def __init__(self, stream: Stream) -> None:
        super().__init__("receiver.invalid")  # the header Host is given with each request
        self._stream = stream

    def connect(self) -> None:
        self.sock = self._stream


class _Source(io.RawIOBase):
    """Where a reader's bytes come from."""

    def __init__(self, receive: Callable[[memoryview], int]) -> None:
        self._receive = receive

    def readable(self) -> bool:
        return True

    def readinto(self, into: "WriteableBuffer") -> int:
        return self._receive(memoryview(into))


class _Reader(io.BufferedReader):
    """Survives the answers that are read from it."""

    def close(self) -> None:
        """http.client closes its file after each answer."""
