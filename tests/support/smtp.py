"""An SMTP server whose every answer can be scripted: what real servers do wrong, made to happen.

server.script["rcpt"] = say("450 4.2.1 busy")
server.script["content"] = late(12)
server.script.clear()          # healthy again
"""

import asyncio
import contextlib
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.servers import Received, free_port
from tests.support.waiting import wait_until

USUAL = {
    "connect": "220 mail.example.com ESMTP",
    "helo": "250 mail.example.com",
    "starttls": "220 2.0.0 Ready",
    "auth": "235 2.7.0 Welcome",
    "mail": "250 2.1.0 Ok",
    "rcpt": "250 2.1.5 Ok",
    "data": "354 Go ahead",
    "content": "250 2.0.0 Taken",
    "rset": "250 2.0.0 Ok",
    "noop": "250 2.0.0 Ok",
    "quit": "221 2.0.0 Bye",
}


class Cut(Exception):
    """Ends the connection without a word."""


class Conversation:
    """One connection. `serial` counts connections from 1, `mails` its accepted mails."""

    def __init__(self, serial: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serial, self.reader, self.writer = serial, reader, writer
        self.sender = self.recipient = ""
        self.content = b""
        self.mails = 0

    async def in_thread(self, work: Callable[[], Any]) -> Any:
        """Lets work be done while the server goes on."""
        return await asyncio.to_thread(work)


Behaviour = Callable[[Conversation, str], Awaitable[str]]


def say(reply: str) -> Behaviour:
    """Always this reply."""

    async def behave(_: Conversation, __: str) -> str:
        return reply

    return behave


def late(seconds: float) -> Behaviour:
    """The usual reply, after a time."""

    async def behave(_: Conversation, usual: str) -> str:
        await asyncio.sleep(seconds)
        return usual

    return behave


async def cut(_: Conversation, __: str) -> str:
    raise Cut


async def silence(_: Conversation, __: str) -> str:
    await asyncio.Event().wait()
    raise Cut


class Gate:
    """Holds conversations at one stage until it is opened: `server.script["content"] = gate`.

    `reply`: what they hear then, instead of the usual. `holds`: only so many are held, later ones pass.
    """

    def __init__(self, reply: str = "", holds: int | None = None) -> None:
        self._reply = reply
        self._holds = holds
        self.waiting: list[Conversation] = []
        self._open = threading.Event()

    async def __call__(self, conversation: Conversation, usual: str) -> str:
        if self._holds is not None and len(self.waiting) >= self._holds:
            return self._reply or usual
        self.waiting.append(conversation)
        while not self._open.is_set():
            await asyncio.sleep(0.01)
        return self._reply or usual

    def wait(self, count: int = 1) -> None:
        """Until so many conversations have come to the gate."""
        wait_until(lambda: len(self.waiting) >= count, 15, f"{count} conversations at the gate")

    def open(self) -> None:
        self._open.set()


class ScriptedSmtp:
    """The server, in a thread of its own. `script` maps a stage (`USUAL`) to a behaviour.

    A mail counts as accepted when its 250 is about to be written, whoever is still there to read it.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        pipelining: bool = True,
        login: str = "",
        ehlo: bool = True,
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
    ) -> None:
        self.port = port or free_port()
        self.pipelining, self.login, self.ehlo, self.tls, self.implicit = (
            pipelining,
            login,
            ehlo,
            tls,
            implicit,
        )
        self.script: dict[str, Behaviour] = {}
        self.mails: list[Received] = []
        self.contents: list[bytes] = []
        self.heard: Counter[str] = Counter()
        self.connections = 0
        self.open_connections: set[Conversation] = set()
        self.pipelined = 0
        self.violations: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self.start()

    def start(self) -> None:
        """Listens (again, on the same port)."""
        self._call(self._listen())

    def stop(self) -> None:
        """Stops listening and breaks every connection."""
        if self._server is not None:
            self._call(self._break_off())

    def close(self) -> None:
        """The end of the server and its thread."""
        self.stop()
        self._call(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def hang_up(self) -> None:
        """Closes every connection, as a server does with idle ones, and goes on listening."""
        self._call(self._close_all())

    def to(self, recipient: str) -> list[Received]:
        return [mail for mail in list(self.mails) if mail.recipient == recipient]

    def wait_for(self, recipient: str, count: int = 1, timeout_s: float = 10.0) -> list[Received]:
        return wait_until(
            lambda: found if len(found := self.to(recipient)) >= count else [], timeout_s, f"{count} mails"
        )

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self.tls if self.implicit else None, backlog=1024
        )

    async def _break_off(self) -> None:
        assert self._server is not None
        self._server.close()
        self._server = None
        for conversation in list(self.open_connections):
            conversation.writer.transport.abort()
        await asyncio.sleep(0)

    async def _close_all(self) -> None:
        for conversation in list(self.open_connections):
            conversation.writer.close()

    async def _cancel_all(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        conversation = Conversation(self.connections, reader, writer)
        self.open_connections.add(conversation)
        try:
            if await self._answer(conversation, "connect"):
                await self._converse(conversation)
        except (Cut, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open_connections.discard(conversation)
            with contextlib.suppress(Exception):
                writer.transport.abort()

    async def _converse(self, conversation: Conversation) -> None:
        while line := await conversation.reader.readline():
            verb, _, argument = line.decode("ascii").strip().partition(" ")
            verb = verb.lower()
            self.heard[verb] += 1
            if conversation.reader._buffer and verb == "mail":  # type: ignore[attr-defined] # see ruff's exceptions
                self.pipelined += 1
            if conversation.reader._buffer and not self.pipelining:  # type: ignore[attr-defined] # see ruff's exceptions
                self.violations.append(f"pipelined after {verb}")
            if not await self._command(conversation, verb, argument):
                return

    async def _command(self, conversation: Conversation, verb: str, argument: str) -> bool:
        """False when the conversation is over."""
        if verb == "ehlo":
            return await self._answer(
                conversation, "ehlo", self._extensions() if self.ehlo else "502 5.5.1 What?"
            )
        if verb == "mail":
            conversation.sender, conversation.recipient = _address(argument) or "<>", ""
        if verb == "rcpt" and conversation.sender:
            conversation.recipient = _address(argument)
        missing = (verb == "rcpt" and not conversation.sender) or (
            verb == "data" and not conversation.recipient
        )
        usual = "503 5.5.1 Not now" if missing else USUAL.get(verb, "502 5.5.1 What?")
        going = await self._answer(conversation, verb, usual)
        if verb == "starttls" and going:
            assert self.tls is not None
            await conversation.writer.start_tls(self.tls)
        return going and verb != "quit"

    async def _answer(self, conversation: Conversation, stage: str, usual: str = "") -> bool:
        reply = await self._reply(conversation, stage, usual or USUAL[stage])
        if stage == "content" and reply.startswith("2"):
            conversation.mails += 1
            self.mails.append(Received(conversation.sender, conversation.recipient, conversation.content))
        conversation.writer.write(reply.encode() + b"\r\n")
        await conversation.writer.drain()
        if reply.startswith("421"):
            return False
        refused = not reply.startswith("2")
        if stage == "mail" and refused:
            conversation.sender = ""
        if stage == "rcpt" and refused:
            conversation.recipient = ""
        if stage == "data" and reply.startswith("354"):
            text = await conversation.reader.readline()
            if text != b".\r\n":
                text += await conversation.reader.readuntil(b"\r\n.\r\n")
            conversation.content = text.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
            self.contents.append(conversation.content)
            return await self._answer(conversation, "content")
        return True

    async def _reply(self, conversation: Conversation, stage: str, usual: str) -> str:
        behaviour = self.script.get(stage)
        return usual if behaviour is None else await behaviour(conversation, usual)

    def _extensions(self) -> str:
        names = ["mail.example.com", "SIZE 10485760"]
        names += ["PIPELINING"] * self.pipelining
        names += [f"AUTH {self.login}"] * bool(self.login)
        names += ["STARTTLS"] * (self.tls is not None and not self.implicit)
        names += ["ENHANCEDSTATUSCODES"]
        return "\r\n".join([f"250-{name}" for name in names[:-1]] + [f"250 {names[-1]}"])


def _address(argument: str) -> str:
    return argument.partition("<")[2].partition(">")[0]
