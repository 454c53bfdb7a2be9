"""A mail server that is out of step: scripted byte by byte, in one thread for each connection.

with OddSmtp(lambda talk: ...) as server:   # the script holds one whole conversation
    ...

`Talk` speaks the ordinary protocol; a script departs from it where it wants:

def stray(talk):
    talk.greet()
    talk.say("250 nobody asked")
    talk.serve()
"""

import contextlib
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

OK = "250 2.0.0 Ok"
EHLO = "250-mail.example.com\r\n250 PIPELINING"
EHLO_TLS = "250-mail.example.com\r\n250-STARTTLS\r\n250 PIPELINING"


class Over(Exception):
    """The conversation is over."""


@dataclass(frozen=True)
class Accepted:
    """One mail as the server understood it: what it will deliver, to whom."""

    sender: str
    recipient: str
    content: bytes


@dataclass
class Talk:
    """One conversation. `before` puts bytes in front of the reply to a stage (`connect`, `mail` …), `instead`
    another reply in its place.

    Like a real server it goes on by what it has heard, whatever it says: where it accepted DATA in its heart,
    everything up to the lone dot is a mail, be it commands.
    """

    sock: socket.socket
    server: "OddSmtp"
    before: Callable[[str], bytes] = lambda _: b""
    instead: Callable[[str, str], str] = lambda _, usual: usual
    buffer: bytes = b""
    sender: str = ""
    recipient: str = ""
    serial: int = field(default=0)

    def say(self, text: str) -> None:
        self.put(text.encode() + b"\r\n")

    def put(self, octets: bytes) -> None:
        try:
            self.sock.sendall(octets)
        except OSError as error:
            raise Over from error

    def drip(self, octets: bytes, pause_s: float) -> None:
        """A byte at a time, for ever again from the start."""
        while not self.server.closing:
            for octet in octets:
                self.put(bytes([octet]))
                time.sleep(pause_s)

    def flood(self, octets: bytes) -> None:
        """The same bytes without end, as fast as they are taken. Counts them."""
        many = octets * (65_536 // len(octets) + 1)
        while not self.server.closing:
            self.put(many)
            self.server.flooded += len(many)

    def line(self) -> str:
        return self._until(b"\r\n").decode("latin-1")

    def answer(self, stage: str, usual: str) -> None:
        self.put(self.before(stage))
        self.say(self.instead(stage, usual))

    def greet(self) -> None:
        self.answer("connect", "220 mail.example.com ESMTP")

    def serve(self) -> None:
        """Commands until QUIT."""
        while True:
            verb, _, argument = self.line().partition(" ")
            address = argument.partition("<")[2].partition(">")[0]
            match verb.lower():
                case "ehlo":
                    tls = self.server.tls and not self.encrypted
                    self.answer("ehlo", EHLO_TLS if tls else EHLO)
                case "starttls" if self.server.tls:
                    self.answer("starttls", "220 2.0.0 Ready")
                    self.encrypt(self.server.tls)
                case "mail":
                    self.sender, self.recipient = address, ""
                    self.answer("mail", OK)
                case "rcpt":
                    self.recipient = address
                    self.answer("rcpt", OK)
                case "data" if self.recipient:
                    self.answer("data", "354 Go ahead")
                    self._content()
                case "rset" | "noop" as stage:
                    self.sender = self.recipient = ""
                    self.answer(stage, OK)
                case "quit":
                    self.say("221 2.0.0 Bye")
                    return
                case _:
                    self.answer("other", "503 5.5.1 What?")

    @property
    def encrypted(self) -> bool:
        return isinstance(self.sock, ssl.SSLSocket)

    def encrypt(self, tls: ssl.SSLContext) -> None:
        """What the client has said before is forgotten."""
        self.buffer = b""
        try:
            self.sock = tls.wrap_socket(self.sock, server_side=True)
        except (OSError, ValueError) as error:
            raise Over from error

    def _content(self) -> None:
        content = self._until(b"\r\n.\r\n") + b"\r\n"
        self.server.accepted.append(Accepted(self.sender, self.recipient, content))
        self.sender = self.recipient = ""
        self.answer("content", OK)

    def _until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            try:
                octets = self.sock.recv(65_536)
            except OSError as error:
                raise Over from error
            if not octets:
                raise Over
            self.buffer += octets
        found, _, self.buffer = self.buffer.partition(end)
        return found


Script = Callable[[Talk], None]


def ordinary(talk: Talk) -> None:
    """Nothing odd."""
    talk.greet()
    talk.serve()


STRAY = (
    OK, "250 mail.example.com", "250-2.0.0 Ok\r\n250 more", "354 Go ahead", "220 mail.example.com",
    "221 2.0.0 Bye", "235 Welcome", "334 VXNlcm5hbWU6", "421 4.3.2 Bye", "450 4.2.1 Busy", "451 4.3.0 Later",
    "500 What?", "503 5.5.1 No", "552 5.3.4 Full", "554 5.7.1 No", "250-half", "what?", "", "2", "99999 x",
    "\0", "250 \0\0", "2\x0050 Ok",
)  # fmt: skip
"""Replies, of which the second strips EHLO of STARTTLS, and what is none. No refusal of a recipient for good:
after one the mail is rightly not sent."""


def _another(_: Talk, chance: random.Random, __: str) -> str:
    return chance.choice(STRAY)


def _stray_before(_: Talk, chance: random.Random, usual: str) -> str:
    return f"{chance.choice(STRAY)}\r\n{usual}"


def _stray_after(_: Talk, chance: random.Random, usual: str) -> str:
    likely = (OK, OK, "354 Go ahead", chance.choice(STRAY))
    return "\r\n".join([usual, *chance.choices(likely, k=chance.randint(1, 6))])


def _in_pieces(talk: Talk, _: random.Random, usual: str) -> str:
    for octet in usual.encode():
        talk.put(bytes([octet]))
        time.sleep(0.001)
    return ""


def _without_end(talk: Talk, chance: random.Random, usual: str) -> str:
    line = f"{usual[:3]}-and so on\r\n".encode()
    if chance.random() < 0.5:
        talk.flood(line)
    talk.drip(line, 0.05)
    raise Over


def _cut_short(talk: Talk, chance: random.Random, usual: str) -> str:
    talk.put(usual.encode()[: chance.randrange(len(usual))])
    raise Over


def at_random(seed: int, share: float = 0.1) -> Script:
    """A server that goes wrong at random in such a share of its replies, each connection in its own way, for
    as long as this is its script."""
    wrongs = (*[_stray_after] * 5, _another, _stray_before, _in_pieces, _without_end, _cut_short)

    def script(talk: Talk) -> None:
        chance = random.Random(f"{seed} {talk.serial}")

        def instead(_: str, usual: str) -> str:
            if talk.server.script is not script or chance.random() > share:
                return usual
            return chance.choice(wrongs)(talk, chance, usual)

        talk.instead = instead
        ordinary(talk)

    return script


class OddSmtp:
    """Listens; every connection is one run of the script, which may be exchanged. `tls`: offers STARTTLS."""

    def __init__(self, script: Script = ordinary, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.tls = tls
        self.accepted: list[Accepted] = []
        self.connections = 0
        self.flooded = 0
        self.closing = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def _listen(self) -> None:
        while not self.closing:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(sock)
            threading.Thread(target=self._run, args=(sock, self.connections), daemon=True).start()

    def _run(self, sock: socket.socket, serial: int) -> None:
        talk = Talk(sock, self, serial=serial)
        with contextlib.suppress(Over):
            self.script(talk)
        talk.sock.close()  # under TLS another one
        self._open.discard(sock)
