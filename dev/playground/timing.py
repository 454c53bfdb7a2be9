"""Times one request where it happens: in this process, inside Redis and at the mail server.

All three read the same machine's clock, so what they note makes one line of moments. Each moment is named
by the step that ended then; a step took the time since the moment before. So the steps add up to the whole,
and a step that did not happen, or that nobody saw, has no time at all.

Redis tells what a script did, and when, by MONITOR: every command of it, with a time stamp of its own. That
costs it some microseconds a command, only while a request is being timed.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from secrets import token_hex
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dev.mailbox import Folder

REDIS_TIMEOUT_S = 0.5
"""A Redis that does not answer must not keep the answer of the service, which is a 503."""

RECENT_MAILS = 20
"""Among so many of the newest, the mail of a request is looked for."""

REGISTER, VERIFY, DRAW, SEND = "register", "verify", "draw", "send"


@dataclass(frozen=True)
class Moment:
    """The end of a step. `at`: Unix time in seconds."""

    at: float
    step: str
    command: str = ""
    """Of Redis, for a step inside a script."""


@dataclass
class Trace:
    """What one request was seen to do."""

    arrived: float = field(default_factory=time.time)
    begun: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    user_key: str = ""
    recipient: str = ""

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Note when it begins and, unless it raises, when it ends; of what happens again, the first time."""
        self.begun.setdefault(name, time.time())
        yield
        self.ended.setdefault(name, time.time())


@dataclass(frozen=True)
class Seen:
    """One command that Redis has carried out."""

    at: float
    words: list[str]
    in_script: bool


class Tracer:
    """Times requests to one application, by its parts: `app/` knows nothing of it."""

    def __init__(self, container: Any, mails: Folder) -> None:
        """`container`: of the application; its services are watched from now on."""
        self._names = container.names
        self._mails = mails
        self._redis = redis.Redis.from_url(
            container.settings.redis_url,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._trace: ContextVar[Trace | None] = ContextVar("trace", default=None)
        self._watch(
            container.registration, "store", REGISTER, lambda draft, *_: (draft.service, draft.address)
        )
        self._watch(container.verification, "verify", VERIFY, lambda service, address, *_: (service, address))
        self._watch(container.numbers, "draw_distinct", DRAW)
        self._watch(container.messaging, "send", SEND)

    @contextmanager
    def request(self) -> Iterator[Callable[[], str]]:
        """Around one request; gives what tells its times, once it is answered (W3C Server-Timing)."""
        with self._monitor() as commands:
            trace = Trace()
            token = self._trace.set(trace)
            try:
                yield lambda: header(trace.arrived, self._moments(trace, time.time(), commands()))
            finally:
                self._trace.reset(token)

    def _watch(self, part: Any, method: str, name: str, whose: Callable[..., Any] | None = None) -> None:
        """`whose`: service and address, of the arguments of the method."""
        original = getattr(part, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            trace = self._trace.get()
            if trace is None:
                return original(*args, **kwargs)
            if whose is not None:
                service, address = whose(*args)
                trace.user_key = self._names.user(service.id, address).user
                trace.recipient = address.envelope
            with trace.during(name):
                return original(*args, **kwargs)

        setattr(part, method, watched)

    @contextmanager
    def _monitor(self) -> Iterator[Callable[[], list[Seen]]]:
        """Around a request; gives what Redis has done since. Nothing, where it cannot be asked."""
        try:
            monitor = self._redis.monitor()
            monitor.__enter__()
        except redis.RedisError:
            yield list
            return
        try:
            yield lambda: self._seen(monitor)
        finally:
            monitor.__exit__()

    def _seen(self, monitor: Any) -> list[Seen]:
        mark, found = token_hex(8), []
        with suppress(redis.RedisError):
            self._redis.echo(mark)
            while True:
                line = monitor.next_command()
                words = line["command"].split(" ")
                if words == ["ECHO", mark]:
                    break
                found.append(Seen(line["time"], words, line["client_type"] == "lua"))
        return found

    def _moments(self, trace: Trace, answered: float, commands: Iterable[Seen]) -> list[Moment]:
        """Everything that was noted, in the order of time."""
        found = [Moment(answered, "answered")]
        for name in (REGISTER, VERIFY):
            if name in trace.begun:
                until = trace.ended.get(name, answered)
                found.append(Moment(trace.begun[name], "checked"))
                found += script_moments(trace, commands, trace.begun[name], until)
        ends = {DRAW: "drawn", REGISTER: "returned", VERIFY: "returned", SEND: "confirmed"}
        found += [Moment(at, ends[name]) for name, at in trace.ended.items()]
        if SEND in trace.begun:
            found.append(Moment(trace.begun[SEND], "handed"))
            found += [Moment(at, "mailed") for at in self._mailed(trace, answered)]
        return sorted(found, key=lambda moment: moment.at)

    def _mailed(self, trace: Trace, answered: float) -> list[float]:
        """When the mail server had the mail, as it says itself; empty when it had not by then."""
        for mail in self._mails.newest(RECENT_MAILS):
            at = datetime.fromisoformat(mail.received_at).timestamp()
            if trace.recipient in mail.recipients and trace.begun[SEND] <= at <= answered:
                return [at]
        return []


def script_moments(trace: Trace, commands: Iterable[Seen], begin: float, end: float) -> Iterator[Moment]:
    """What the scripts for this user did between two moments."""
    ours = False
    for command in commands:
        if not command.in_script:
            ours = trace.user_key in command.words and begin <= command.at <= end
            if ours:
                yield Moment(command.at, "asked")
        elif ours:
            step = step_of(command.words) if REGISTER in trace.begun else "compared"
            yield Moment(command.at, step, command.words[0])


def step_of(words: list[str]) -> str:
    """Which step of the diagram a command of `register.lua` is."""
    verb, key = words[0].upper(), words[1] if len(words) > 1 else ""
    kind = key.split(":")[1] if key.count(":") else ""
    if verb == "SET" and kind == "number":
        return "tried"
    if verb in ("HGET", "HMGET", "EXISTS", "GET") and kind in ("user", "number"):
        return "looked"
    if verb in ("DEL", "UNLINK") and any(":number:" in each for each in words[1:]):
        return "deleted"
    if verb in ("TIME", "TTL", "PTTL", "GET"):
        return "prepared"
    return "stored"


def header(arrived: float, moments: Iterable[Moment]) -> str:
    """The steps in the order in which they first ended, each with all its time in ms, and the total."""
    spent: dict[str, float] = {}
    commands: dict[str, list[str]] = {}
    before = arrived
    for moment in moments:
        spent[moment.step] = spent.get(moment.step, 0.0) + moment.at - before
        commands.setdefault(moment.step, []).extend([moment.command] if moment.command else [])
        before = moment.at
    spent["total"] = before - arrived
    return ", ".join(
        f"{step};dur={seconds * 1000:.3f}"
        + (f';desc="{" ".join(commands[step])}"' if commands.get(step) else "")
        for step, seconds in spent.items()
    )
