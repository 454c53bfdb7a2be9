"""Threads that must live, and what a fork makes of them. May import nothing of the app.

Under gevent a thread is a greenlet; only `forget_greenlets` knows the difference.
"""

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog

START_AGAIN_S = 1.0
"""Between the death of a thread and its restart: a lasting fault must not use up the processor."""

UNWELL_S = 30.0
"""A thread counts as unwell for so long after a death, so that probes and scrapes see it."""

log = structlog.get_logger()


class WatchedThread:
    """One thread that must live: when its body raises, that is counted and logged, and the body starts again.

    `body` runs until `stopping` is set, and calls `beat` at least every `silent_s` seconds (0: it need not).
    The thread ends only when the body returns.
    """

    def __init__(
        self,
        name: str,
        body: Callable[["WatchedThread"], None],
        *,
        silent_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.deaths = 0
        self.stopping = threading.Event()
        self._body = body
        self._silent_s = silent_s
        self._clock = clock
        self._died_at = -UNWELL_S
        self._beat_at = clock()
        self._done = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread, once. Raises RuntimeError where the system has no more threads."""
        if self._thread is not None:
            return
        self._beat_at = self._clock()
        self._thread = threading.Thread(target=self._live, daemon=True, name=self.name)
        try:
            self._thread.start()  # lets other threads run, which may call start, too
        except RuntimeError:
            self._thread = None
            raise

    def stop(self, timeout_s: float) -> None:
        """Tells the body to end, and waits for it at most `timeout_s` seconds."""
        self.stopping.set()
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(timeout_s)

    def beat(self) -> None:
        """The body is at work."""
        self._beat_at = self._clock()

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def fault(self) -> str:
        """`died`, `silent`, or empty when it is well or was told to end."""
        is_starting = self._thread is None or self._thread.ident is None
        if is_starting or self.stopping.is_set():
            return ""
        now = self._clock()
        if now - self._died_at < UNWELL_S or not (self.alive or self._done):
            return "died"
        if self.alive and 0 < self._silent_s < now - self._beat_at:
            return "silent"
        return ""

    def _live(self) -> None:
        died = False
        while not self.stopping.is_set():
            try:
                if died and self.stopping.wait(START_AGAIN_S):
                    return
                died = False
                self._beat_at = self._clock()
                self._body(self)
                self._done = True
                return
            except BaseException as error:  # noqa: BLE001 the thread must live
                died = True
                self.deaths += 1
                self._died_at = self._clock()
                with suppress(Exception):  # an error of the log must not end the thread, either
                    log.error("thread_died", thread=self.name, exception=error)


def stop_all(threads: Iterable[WatchedThread], timeout_s: float) -> None:
    """Stops one thread after the other; `timeout_s` is for all of them together."""
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.stop(max(0.0, deadline - time.monotonic()))


def in_children(method: Callable[[], None]) -> None:
    """Calls a bound method in every forked process, as long as its object lives.

    For few objects of a process: Python never forgets a handler.
    """
    weak = weakref.WeakMethod(method)

    def call() -> None:
        found = weak()
        if found is not None:
            found()

    os.register_at_fork(after_in_child=call)


_forgotten: list[object] = []


def forget_greenlets() -> None:
    """Keeps the copies of greenlets that a fork has left in this process from ever running.

    fork() copies every greenlet, and the copies would read from the parent's sockets as soon as this process
    waits for anything. They belong to the old event loop, so this process gets another one.
    """
    hub = sys.modules.get("gevent.hub")
    if hub is not None:
        _forgotten.append(hub.get_hub())  # if it were collected, an exception would be thrown into them
        hub.set_hub(hub.Hub(default=False))
