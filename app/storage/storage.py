"""The store: what the repositories may ask of Redis, wherever it is.

Writes are never repeated blindly: after a time-out nobody knows whether a script ran, and only the caller can
decide to ask again. Repeated are only answers that say that nothing ran: NOSCRIPT (the script cache was lost)
and, on a cluster, MOVED, ASK and TRYAGAIN (a slot is on the move), and what could not be sent at all once
another node has the slot.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import structlog
from redis.exceptions import ClusterDownError, NoScriptError, ResponseError

from app.errors import StorageUnavailable
from app.storage.connections import Command, Connections
from app.storage.faults import LASTING, Broken, code, detail
from app.storage.line import Line
from app.storage.scripts import SCRIPTS
from app.storage.servers import Cluster, OneServer
from app.storage.url import CLUSTER, RedisUrl
from app.threads import WatchedThread, in_children

SCAN_COUNT = 500
"""Keys that Redis looks at for one answer: some milliseconds of its time."""

AT_A_TIME = 100
"""Keys in one round trip: a millisecond of this process, after which others get their turn."""

T = TypeVar("T")

log = structlog.get_logger()


class ErrorBoundary:
    """Around what is asked of Redis: every error becomes StorageUnavailable, and is logged."""

    def __init__(self, *, logs: bool) -> None:
        self._logs = logs

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Broken | ResponseError):
            self.log(error)
            raise unavailable(error) from cause(error)

    def log(self, error: BaseException) -> None:
        """Only the code, never the text: that of a script's error can quote its arguments."""
        if not self._logs:
            return
        word, more = code(cause(error)), detail(cause(error))
        tell = log.error if word in LASTING else log.warning
        tell("storage_unavailable", error=word, **({"detail": more} if more else {}))


def cause(error: BaseException) -> BaseException:
    return error.error if isinstance(error, Broken) else error


def unavailable(error: BaseException) -> StorageUnavailable:
    return StorageUnavailable("Redis does not answer, or refuses the write", code=code(cause(error)))


def checked(answer: Any) -> Any:
    """The answer; a refusal is raised, and that none came."""
    if isinstance(answer, ResponseError | Broken):
        raise answer
    return answer


def is_away(answer: Any) -> bool:
    """Whether nobody has answered who has the key: its master is away, or its slot is nobody's."""
    return isinstance(answer, Broken | ClusterDownError)


class Server:
    """One server by itself."""

    def __init__(self, line: Line, boundary: ErrorBoundary) -> None:
        self._line = line
        self._boundary = boundary

    def command(self, *words: Any) -> Any:
        """The answer to one command. Raises StorageUnavailable."""
        with self._boundary:
            return checked(self._line.call((words,))[0])

    def info(self, *sections: str) -> dict[str, str]:
        """What it tells of itself; nothing where that may not be asked. Raises StorageUnavailable."""
        with self._boundary:
            told = self._line.call((("INFO", *sections),))[0]
        if isinstance(told, ResponseError):
            return {}
        lines = (line.partition(":") for line in told.decode(errors="replace").splitlines())
        return {name: value for name, separator, value in lines if separator}


class Storage:
    """Redis in any form that REDIS_URL can have. Every method raises StorageUnavailable.

    Nothing is asked of Redis until a method is called, so it may be away when this is made.
    """

    def __init__(self, url: str, timeout_s: float, replicas: int = 0, *, logs: bool = True) -> None:
        """`replicas`: how many must have what an acknowledged script wrote before it counts.

        Raises ValueError for a URL that cannot be read.
        """
        self._where = RedisUrl.read(url)
        self._timeout_s = self._where.options.get("socket_timeout", timeout_s)
        self._replicas = replicas
        self._boundary = ErrorBoundary(logs=logs)
        self._servers = self._new_servers()
        self._inherited: list[OneServer | Cluster] = []
        in_children(self._start_over)

    def run(self, call: tuple[Any, ...]) -> Any:
        """Runs a script (see `scripts`): one atomic decision, one round trip.

        An acknowledged one waits for replicas, on its own connection; where too few have what it wrote, this
        raises, and the write may stand.
        """
        script = SCRIPTS[type(call)]
        arguments = script.arguments(call)
        replicas = self._replicas if script.acknowledged else 0
        with self._boundary:
            answer = self._servers.call(arguments[1], ("EVALSHA", script.sha1, *arguments), replicas)
            if isinstance(answer, NoScriptError):
                answer = self._servers.call(arguments[1], ("EVAL", script.text, *arguments), replicas)
            return checked(answer)

    def command(self, *words: Any) -> Any:
        """The answer to one command; its key follows its name."""
        with self._boundary:
            return checked(self._servers.call(words[1], words))

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to commands with one key each, in one round trip for each server."""
        with self._boundary:
            return [checked(answer) for answer in self.outcomes(commands)]

    def outcomes(self, commands: Sequence[Command]) -> list[Any]:
        """The same, with errors in place of the answers that did not come. Raises Broken."""
        return self._servers.pipeline(commands)

    def ask_each(
        self,
        items: Iterable[T],
        question: Callable[[T], Command],
        instead: Any = None,
        *,
        partly: bool = False,
    ) -> Iterator[tuple[T, Any]]:
        """Every item with the answer to one question about it, in few round trips.

        What is wrong with one key costs that key alone: one that Redis cannot use, such as one of the wrong
        type, is logged; its item is left out, or has the answer `instead`. `partly`: what a master has that
        is away is left out, too, as long as another one answers.
        """
        remaining = iter(items)
        while batch := list(islice(remaining, AT_A_TIME)):
            commands = [question(item) for item in batch]
            with self._boundary:
                answers = self.outcomes(commands)
                away = [answer for answer in answers if is_away(answer)]
                if away and not (partly and len(away) < len(answers)):
                    raise away[0]
            if away:
                self._boundary.log(away[0])
            for item, command, answer in zip(batch, commands, answers, strict=True):
                if is_away(answer):
                    continue
                if not isinstance(answer, ResponseError):
                    yield item, answer
                    continue
                self._tell_of_spoiled(command[1], answer)
                if instead is not None:
                    yield item, instead

    def _tell_of_spoiled(self, key: str, refusal: ResponseError) -> None:
        """Logs that Redis cannot use the key. Any other refusal is raised."""
        with self._boundary:
            if not unavailable(refusal).of_one_key:
                raise refusal
        log.error("key_spoiled", redis_key=key, error=code(refusal))

    def any_of(self, commands: Sequence[Command]) -> None:
        """Does commands with one key each, of which one must succeed; else the first error is raised."""
        with self._boundary:
            outcomes = self.outcomes(commands)
            if all(isinstance(outcome, ResponseError | Broken) for outcome in outcomes):
                checked(outcomes[0])

    def refusals(self, commands: Sequence[Command]) -> list[str]:
        """Tries commands with one key each: the code of each refusal, empty for what was done."""
        with self._boundary:
            outcomes = self.outcomes(commands)
            if broken := next((outcome for outcome in outcomes if isinstance(outcome, Broken)), None):
                raise broken
        return [code(outcome) if isinstance(outcome, ResponseError) else "" for outcome in outcomes]

    def scan(self, match: str) -> Iterator[bytes]:
        """The keys of a pattern, on all servers. Reads every key: seconds for a million."""
        for server in self.servers():
            cursor: Any = b"0"
            while True:
                cursor, keys = server.command("SCAN", cursor, "MATCH", match, "COUNT", SCAN_COUNT)
                yield from keys
                if cursor == b"0":
                    break

    def now_ms(self) -> int:
        """Unix time in ms by the clock of Redis, by which everything there is due.

        Every master of a cluster that answers tells its own; the latest finds what is due on any.
        """
        told: list[Any] = []
        for server in (servers := self.servers()):
            try:
                told.append(server.command("TIME"))
            except StorageUnavailable:
                if server is servers[-1] and not told:
                    raise
        seconds, microseconds = max(told)
        return int(seconds) * 1000 + int(microseconds) // 1000

    def size(self) -> int:
        """How many keys there are."""
        return sum(server.command("DBSIZE") for server in self.servers())

    def servers(self) -> list[Server]:
        """Every server that takes writes."""
        with self._boundary:
            return [Server(line, self._boundary) for line in self._servers.primaries()]

    @property
    def threads(self) -> tuple[WatchedThread, ...]:
        """Threads that must live."""
        return self._servers.threads

    def close(self) -> None:
        """Ends the connections; a later call makes others."""
        servers, self._servers = self._servers, self._new_servers()
        servers.close()

    def _new_servers(self) -> OneServer | Cluster:
        connections = Connections(self._where, self._timeout_s)
        if self._where.scheme == CLUSTER:
            return Cluster(connections, self._where.hosts, self._timeout_s)
        return OneServer(connections, self._timeout_s)

    def _start_over(self) -> None:
        """In a forked process: threads, connections and callers are the parent's, and are left alone."""
        self._inherited.append(self._servers)
        self._servers = self._new_servers()
