"""A receiver of webhooks that is out of step: scripted byte by byte, in one thread for each connection.

with OddReceiver(lambda talk: talk.put(b"nonsense")) as receiver:   # what it does after each request
    ...
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from app.domain.service import Endpoint
from tests.support.events import SECRET
from tests.support.faults.smtp import OddSmtp, Over, Talk
from tests.support.waiting import wait_until

Act = Callable[[Talk], None]


def takes(talk: Talk) -> None:
    """Answers as a receiver should."""
    talk.put(b"HTTP/1.1 204 No Content\r\n\r\n")


@dataclass(frozen=True)
class Posted:
    """One request. `connection`: its number among the receiver's; `headers`: by names in lower case."""

    connection: int
    line: str
    headers: dict[str, str]
    body: bytes


def says(octets: bytes) -> Act:
    """Answers so."""
    return lambda talk: talk.put(octets)


def floods(octets: bytes, first: bytes = b"") -> Act:
    """Answers first so, and then so without end, as fast as it is taken."""

    def act(talk: Talk) -> None:
        talk.put(first)
        talk.flood(octets)

    return act


def drips(octets: bytes, pause_s: float, first: bytes = b"") -> Act:
    """Likewise, a byte at a time."""

    def act(talk: Talk) -> None:
        talk.put(first)
        talk.drip(octets, pause_s)

    return act


def hangs(talk: Talk) -> None:
    """Does not answer."""
    wait_until(lambda: talk.server.closing, 60)


def closes(octets: bytes = b"") -> Act:
    """Answers so, and closes the connection."""

    def act(talk: Talk) -> None:
        talk.put(octets)
        raise Over

    return act


class OddReceiver(OddSmtp):
    """Listens at 127.0.0.1. `act`: what becomes of each request, once it is read; it may be exchanged.
    `at_once`: what is done before anything is read. `tls`: encrypts."""

    def __init__(
        self,
        act: Act = takes,
        tls: ssl.SSLContext | None = None,
        at_once: Act = lambda _: None,
    ) -> None:
        self.act, self.at_once = act, at_once
        self.posted: list[Posted] = []
        super().__init__(self._converse, tls)

    def endpoint(self, host: str = "127.0.0.1", path: str = "/hooks", *secrets: str) -> Endpoint:
        return Endpoint(f"http{'s' if self.tls else ''}://{host}:{self.port}{path}", secrets or (SECRET,))

    def _converse(self, talk: Talk) -> None:
        self.at_once(talk)
        if self.tls:
            talk.encrypt(self.tls)
        while True:
            self.posted.append(self._read(talk))
            self.act(talk)

    def _read(self, talk: Talk) -> Posted:
        line = talk.line()
        headers = {}
        while header := talk.line():
            name, _, value = header.partition(": ")
            headers[name.lower()] = value
        length = int(headers["content-length"])
        while len(talk.buffer) < length:
            octets = talk.sock.recv(65_536)
            if not octets:
                raise Over
            talk.buffer += octets
        body, talk.buffer = talk.buffer[:length], talk.buffer[length:]
        return Posted(talk.serial, line, headers, body)
