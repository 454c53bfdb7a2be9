"""Which server has a key: the one server, or a node of a cluster. A cluster's map of slots is read in the
background, and anew when it turns out wrong."""

import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError

from app.storage.connections import Command, Connections
from app.storage.faults import Broken, NoNode, TooFewReplicas, code
from app.storage.line import Line
from app.storage.watchdog import BEAT_S, SILENT_S, Watchdog
from app.threads import WatchedThread

Node = tuple[str, int]

SLOTS = 16_384
REDIRECTIONS = 8
TRY_AGAIN_S = 0.05
"""A slot on the move answers TRYAGAIN until all its keys have arrived: some milliseconds, as a rule."""

HALF_MOVED = "non local key"
"""What Redis says to a script that touches a key it could not declare, when that key has left the slot's old
node. Our scripts do so before their first write. Redis has no code word for it."""

READ_AGAIN_AFTER_S = 0.1
"""While a master is away, every call asks for the map."""

log = structlog.get_logger()


class OneServer:
    """One server, or the master that the sentinels name. Raises Broken; a refusal is an answer."""

    def __init__(self, connections: Connections, timeout_s: float) -> None:
        watchdog = Watchdog(timeout_s)
        self._line = Line(connections.connect(), watchdog)
        self.threads = (watchdog.thread,)
        self.close = self._line.close

    def call(self, key: str, command: Command, replicas: int = 0) -> Any:  # noqa: ARG002 - it has every key
        """The answer to one command."""
        return self._line.call((command,), replicas)[0]

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to commands with one key each, the word after the name."""
        return self._line.call(commands) if commands else []

    def primaries(self) -> list[Line]:
        """Every server that takes writes."""
        return [self._line]


class Cluster:
    """The masters of a cluster, and the map that tells which slot each has. Otherwise as OneServer."""

    def __init__(self, connections: Connections, seeds: Sequence[Node], timeout_s: float) -> None:
        self._connections = connections
        self._seeds = list(seeds)
        self._timeout_s = timeout_s
        self._watchdog = Watchdog(timeout_s)
        self._lines: dict[Node, Line] = {}
        self._slots: list[Node | None] = [None] * SLOTS
        self._doubtful: Node | None = None
        self._mutex = threading.Lock()
        self._wanted, self._read = threading.Event(), threading.Event()
        self._thread = WatchedThread("cluster-map", self._keep_reading, silent_s=SILENT_S)
        self.threads = (self._watchdog.thread, self._thread)

    def close(self) -> None:
        """Ends all connections; nothing may be asked afterwards."""
        self._thread.stop(0)
        for line in list(self._lines.values()):
            line.close()

    def call(self, key: str, command: Command, replicas: int = 0) -> Any:
        """Follows the slot to where it is, as long as nothing has run and the time-out lasts."""
        until = time.monotonic() + self._timeout_s
        slot = key_slot(key.encode())
        asked: Node | None = None
        redirections = 0
        while redirections < REDIRECTIONS:
            node = asked or self._node(slot, until)
            commands = (("ASKING",), command) if asked else (command,)
            try:
                answer = self._line(node).call(commands, replicas, until - time.monotonic())[-1]
            except Broken as broken:
                if not self._has_moved(slot, node, broken, until):
                    raise
                asked = None
                continue
            if isinstance(answer, MovedError):
                asked, self._slots[slot] = None, (answer.host or node[0], answer.port)
                self._wanted.set()
            elif isinstance(answer, AskError):
                asked = answer.host or node[0], answer.port
            elif _on_the_move(answer) and time.monotonic() < until:
                time.sleep(TRY_AGAIN_S)
                continue
            else:
                if isinstance(answer, ClusterDownError):
                    self.read_map(0)
                return answer
            redirections += 1
        raise Broken(ClusterDownError("too many redirections"), sent=False)

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """Node by node; what a node sends elsewhere goes there by itself. Where a node is away, or nobody has
        the slot, Broken stands in place of the answer."""
        until = time.monotonic() + self._timeout_s
        places: dict[Node | None, list[int]] = {}
        for index, node in enumerate(self._nodes(commands, until)):
            places.setdefault(node, []).append(index)
        answers: list[Any] = [None] * len(commands)
        # One that was silent before is asked last: then it costs the others none of their time.
        for node in sorted(places, key=lambda node: node == self._doubtful):
            indices = places[node]
            found = self._answers(node, [commands[index] for index in indices], until)
            for index, answer in zip(indices, found, strict=True):
                answers[index] = answer
        return answers

    def primaries(self) -> list[Line]:
        if not any(self._slots):
            self.read_map(self._timeout_s)
        masters = [node for node in dict.fromkeys(self._slots) if node is not None]
        if not masters:
            raise _nobody_has_it()
        return [self._line(node) for node in masters]

    def read_map(self, timeout_s: float) -> None:
        """Has the map read anew, and waits for it at most `timeout_s` seconds."""
        self._thread.start()
        with self._mutex:
            read = self._read
            self._wanted.set()
        read.wait(timeout_s)

    def _has_moved(self, slot: int, node: Node, broken: Broken, until: float) -> bool:
        """Whether what could not be sent to the node can go to another one, by a newer map."""
        self._doubtful = node
        if broken.sent:
            if not isinstance(broken.error, TooFewReplicas):
                self.read_map(0)
            return False
        self.read_map(until - time.monotonic())
        return time.monotonic() < until and self._slots[slot] != node

    def _answers(self, node: Node | None, commands: Sequence[Command], until: float) -> list[Any]:
        """Of commands that one node should answer."""
        if node is None:
            return [_nobody_has_it()] * len(commands)
        try:
            answers = self._line(node).call(commands, timeout_s=until - time.monotonic())
        except Broken as broken:
            self._doubtful = node
            self.read_map(0)
            return [broken] * len(commands)
        return [
            self._elsewhere(command) if isinstance(answer, AskError) or _on_the_move(answer) else answer
            for command, answer in zip(commands, answers, strict=True)  # MovedError is an AskError
        ]

    def _elsewhere(self, command: Command) -> Any:
        try:
            return self.call(command[1], command)
        except Broken as broken:
            return broken

    def _nodes(self, commands: Sequence[Command], until: float) -> list[Node | None]:
        """Who has the key of each command; asks once for what is not known."""
        slots = [key_slot(command[1].encode()) for command in commands]
        if any(self._slots[slot] is None for slot in slots):
            self.read_map(until - time.monotonic())
        return [self._slots[slot] for slot in slots]

    def _node(self, slot: int, until: float) -> Node:
        node = self._slots[slot]
        if node is None:
            self.read_map(until - time.monotonic())
            node = self._slots[slot]
        if node is None:
            raise _nobody_has_it()
        return node

    def _line(self, node: Node) -> Line:
        line = self._lines.get(node)
        if line is None:
            new = Line(lambda: self._connections.to(*node), self._watchdog)
            with self._mutex:
                line = self._lines.setdefault(node, new)
        return line

    def _keep_reading(self, thread: WatchedThread) -> None:
        while not thread.stopping.is_set():
            thread.beat()
            if not self._wanted.wait(BEAT_S):
                continue
            with self._mutex:
                self._wanted.clear()
                read, self._read = self._read, threading.Event()
            try:
                self._ask_nodes(thread)
            finally:
                read.set()
            thread.stopping.wait(READ_AGAIN_AFTER_S)

    def _ask_nodes(self, thread: WatchedThread) -> None:
        """The known masters, then the hosts of REDIS_URL: in Kubernetes all may have moved."""
        known = [node for node in dict.fromkeys(self._slots) if node is not None]
        random.shuffle(known)
        fault = ""
        for node in sorted(dict.fromkeys([*known, *self._seeds]), key=lambda node: node == self._doubtful):
            thread.beat()
            try:
                answer = self._line(node).call([("CLUSTER", "SLOTS")])[0]
            except Broken as broken:
                fault = code(broken.error)
                continue
            if isinstance(answer, ResponseError):
                fault = code(answer)
            elif answer:
                self._take(answer, node)
                return
        log.warning("cluster_unknown", error=fault)

    def _take(self, ranges: list[Any], teller: Node) -> None:
        """CLUSTER SLOTS: first slot, last slot, master, replicas; a node is host, port and more."""
        slots: list[Node | None] = [None] * SLOTS
        for first, last, (host, port, *_), *_ in ranges:
            slots[first : last + 1] = [((host or b"").decode() or teller[0], port)] * (last + 1 - first)
        self._slots = slots
        masters = set(slots)
        with self._mutex:
            self._lines = {node: line for node, line in self._lines.items() if node in masters}


def _nobody_has_it() -> Broken:
    return Broken(NoNode("no node of the cluster is known to have the slot"), sent=False)


def _on_the_move(answer: Any) -> bool:
    """Whether the keys of the slot are partly here and partly there; nothing has run."""
    return isinstance(answer, ResponseError) and (
        isinstance(answer, TryAgainError) or HALF_MOVED in str(answer)
    )
