"""Ends what takes too long on the way to Redis. May import `app.threads`.

Promise: no caller waits longer than REDIS_TIMEOUT and a tenth. One thread looks after all connections of a
store, since a timer for each caller would cost a fifth of a call.
"""

import threading
import time
import weakref
from functools import partial
from typing import Final, Protocol

from app.threads import WatchedThread

LOOKS: Final = 10
"""In one time-out: so each caller waits at most a tenth of it longer."""

BEAT_S: Final = 5.0
SILENT_S: Final = 60.0
"""A thread of this room beats also while it has nothing to do, and counts as unwell when it was silent for so
long."""


class Watched(Protocol):
    """Where callers wait."""

    def end_overdue(self, now: float) -> bool:
        """Ends the waits that are over at this time (monotonic). Returns whether others go on."""


class Watchdog:
    """While callers wait, its thread looks LOOKS times in a time-out. The thread ends with this object."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._watched: weakref.WeakSet[Watched] = weakref.WeakSet()
        self._needed = threading.Event()
        watch = partial(_watch, weakref.ref(self), self._needed, timeout_s / LOOKS)
        self.thread = WatchedThread("redis-watchdog", watch, silent_s=SILENT_S)

    def add(self, watched: Watched) -> None:
        """Looks after it as long as it lives."""
        self._watched.add(watched)

    def wake(self) -> None:
        """A caller waits now. Raises RuntimeError where the system has no more threads."""
        if self._needed.is_set():
            return
        self._needed.set()
        try:
            self.thread.start()
        except RuntimeError:
            self._needed.clear()
            raise

    def look(self) -> None:
        """Ends the waits that are over."""
        self._needed.clear()
        now = time.monotonic()
        for watched in list(self._watched):
            if watched.end_overdue(now):
                self._needed.set()


def _watch(
    found: "weakref.ref[Watchdog]", needed: threading.Event, pause_s: float, thread: WatchedThread
) -> None:
    while (watchdog := found()) is not None:
        watchdog.look()
        del watchdog
        thread.beat()
        if needed.wait(BEAT_S):
            thread.stopping.wait(pause_s)
