"""The store, each of whose round trips is a step of a trace. Made only where there are traces,
so that without them no request pays for it. May import `storage` and `telemetry.traces`.
"""

from collections.abc import Sequence
from typing import Any

from app.storage.connections import Command
from app.storage.scripts import SCRIPTS
from app.storage.storage import Storage
from app.telemetry.traces import Traces


class TracedStorage(Storage):
    """Storage whose steps are named after scripts and commands, and hold no key."""

    def __init__(self, traces: Traces, url: str, timeout_s: float, replicas: int = 0) -> None:
        super().__init__(url, timeout_s, replicas)
        self._traces = traces

    def run(self, call: tuple[Any, ...]) -> Any:
        with self._traces.redis(SCRIPTS[type(call)].name):
            return super().run(call)

    def command(self, *words: Any) -> Any:
        with self._traces.redis(words[0]):
            return super().command(*words)

    def outcomes(self, commands: Sequence[Command]) -> list[Any]:
        with self._traces.redis("pipeline"):
            return super().outcomes(commands)
