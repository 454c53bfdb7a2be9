"""What probes and Prometheus are told: is the service ready, what was counted, what is in the store.

All workers answer alike: they share what each knows over a board (app/telemetry/board.py). May import
repositories and telemetry.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from math import sqrt
from typing import NamedTuple
from weakref import WeakKeyDictionary

from app.domain.number import SHARDS, NumberGenerator
from app.errors import StorageUnavailable
from app.repositories.census import Census
from app.repositories.guard import Guard
from app.repositories.outbox import Outbox
from app.telemetry import lines
from app.telemetry.board import Board, Snapshot, WorkerState, gauges
from app.telemetry.metrics import (
    Metrics,
    Series,
    StoreState,
    add,
    exposition,
    service_gauges,
    store_gauges,
)
from app.threads import WatchedThread

LOOK_AGAIN_S = 5.0
"""Scrapes within this time get the same facts of the store: to look costs 1,000 counts of Redis."""

LOOK_WITHIN_S = 4.0
"""A scrape waits so long for a look, and then tells what the one before has found: Prometheus gives up after
10 s, and a look at a Redis that is slow but answers has some thirty round trips."""

SNAPSHOT_S = 1.0
"""The greatest age of what one worker knows of another."""

BEGIN_AFTER_S = 0.1
"""A process that only forks others (`gunicorn --preload`) stops the thread before this, and takes no slot."""

FULLEST_SIGMAS = 4
"""Users fall into shards by a keyed digest, so a shard's count is binomial; of a thousand shards, the
fullest is above its mean by more than four standard deviations in 3 cases of 100."""


class Readiness(NamedTuple):
    """`smtp`: `ok`, or what is wrong with the mail server. `unwell`: threads that died or hang."""

    redis_ok: bool
    smtp: str
    unwell: tuple[str, ...]


class Monitoring:
    """Answers probes, and scrapes at a bounded cost, whatever the number of registrations."""

    def __init__(
        self,
        metrics: Metrics,
        guard: Guard,
        outbox: Outbox,
        census: Census,
        numbers: NumberGenerator,
        clock: Callable[[], float] = time.monotonic,
        *,
        counted_elsewhere: Callable[[], Series] = dict,
        mail_state: Callable[[], tuple[str, float]] = lambda: ("ok", 0.0),
        events_waiting: Callable[[], Mapping[str, int]] = dict,
        receivers: Callable[[], Mapping[str, str]] = dict,
        threads: Callable[[], Sequence[WatchedThread]] = tuple,
        folder_is_new: Callable[[], None] = lambda: None,
        look_within_s: float = LOOK_WITHIN_S,
    ) -> None:
        """`mail_state`: `ok`, or what is wrong with the mail server, and when that was heard (monotonic).
        `folder_is_new`: called where the folder that the workers share was removed, and is there again."""
        self._metrics = metrics
        self._guard = guard
        self._outbox = outbox
        self._census = census
        self._possibilities = numbers.possibilities
        self._clock = clock
        self._counted_elsewhere = counted_elsewhere
        self._mail_state = mail_state
        self._events_waiting = events_waiting
        self._receivers = receivers
        self._threads = threads
        self._folder_is_new = folder_is_new
        self._look_within_s = look_within_s
        self._looking = threading.Lock()
        self._look_again_at = -math.inf
        self._look_over: Future[None] = Future()
        self._store_up = False
        self._store: StoreState | None = None
        self._sharing = threading.Lock()
        self._board = Board()
        self._thread: WatchedThread | None = None
        self._deaths: WeakKeyDictionary[WatchedThread, int] = WeakKeyDictionary()
        self._dropped = 0

    def start(self) -> None:
        """Starts the thread that writes snapshots, in a slot of this process."""
        self._board = Board()
        self._look_again_at = -math.inf  # a look of the process that has forked this one never ends here
        self._thread = WatchedThread("snapshots", self._write_snapshots, silent_s=10 * SNAPSHOT_S)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and writes a last snapshot."""
        if self._thread is not None:
            self._thread.stop(SNAPSHOT_S)
            if self._board.slot:
                self._share()

    def readiness(self) -> Readiness:
        """Makes one small write to Redis; the mail server and the threads are known without asking."""
        redis_ok = False
        with suppress(StorageUnavailable):
            self._guard.ready()
            redis_ok = True
        workers = [self._share(), *self._board.others()]
        states = [worker.state for worker in workers if worker.state is not None]
        _, smtp = max((state.smtp_at, state.smtp) for state in states)  # who heard last knows best
        unwell = {name for state in states for name, fault in state.threads.items() if fault}
        return Readiness(redis_ok, smtp, tuple(sorted(unwell)))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format; without the store's where Redis is away. Takes seconds at
        most."""
        self._look()
        # Its own first: what this answer tells is then on the board, for the others and after a crash.
        workers = [self._share(), *self._board.others()]
        total = workers[0].series
        for other in workers[1:]:
            add(total, other.series)
        services = self._metrics.services
        told = [
            *gauges(workers),
            *service_gauges(services),
            *store_gauges(self._store, services, is_up=self._store_up),
        ]
        return exposition(total, told)

    def _write_snapshots(self, thread: WatchedThread) -> None:
        wait_s = BEGIN_AFTER_S
        while not thread.stopping.wait(wait_s):
            thread.beat()
            self._share()
            wait_s = SNAPSHOT_S

    def _share(self) -> Snapshot:
        """Writes this worker's snapshot, and returns it."""
        with self._sharing:
            self._metrics.add(self._board.join())
            state = self._observe()
            series = self._metrics.series()
            if self._board.post(state, series):
                self._folder_is_new()
            return Snapshot(self._board.slot, state, series)

    def _observe(self) -> WorkerState:
        """What this process knows. Counts what has been added to the totals of deaths and dropped lines."""
        threads = [*self._threads(), *([self._thread] if self._thread else [])]
        for thread in threads:
            deaths = thread.deaths
            self._metrics.thread_restarts(thread.name, deaths - self._deaths.get(thread, 0))
            self._deaths[thread] = deaths
        dropped = lines.dropped()
        self._metrics.lines_dropped(dropped - self._dropped)
        self._dropped = dropped
        faults: dict[str, str] = {}
        for thread in threads:
            faults[thread.name] = thread.fault or faults.get(thread.name, "")
        return WorkerState(self._metrics.breaker_open, *self._mail_state(), faults)

    def _look(self) -> None:
        """Has the store looked at where the last look is old, and waits for its end, but not for long."""
        with self._looking:
            if self._clock() >= self._look_again_at:
                self._look_again_at = math.inf  # until this look is over
                self._look_over = Future()
                try:
                    threading.Thread(target=self._find, args=(self._look_over,), daemon=True).start()
                except RuntimeError:  # the system has no more threads
                    self._find(self._look_over)
        with suppress(TimeoutError):
            self._look_over.result(self._look_within_s)

    def _find(self, over: "Future[None]") -> None:
        """One look, in a thread of its own."""
        try:
            self._guard.ready()
            self._store_up = True
            self._store = self._store_state()
            with suppress(StorageUnavailable):
                self._metrics.add(self._counted_elsewhere())
        except StorageUnavailable:
            self._store_up, self._store = False, None
        except BaseException as error:  # noqa: BLE001 raised to whoever scrapes
            over.set_exception(error)
        self._look_again_at = self._clock() + LOOK_AGAIN_S
        if not over.done():
            over.set_result(None)

    def _store_state(self) -> StoreState:
        owed = self._census.owed()
        age_ms = max(0, self._outbox.now_ms() - owed.oldest_ms) if owed.oldest_ms is not None else 0
        mean = self._census.records_at_most() / SHARDS
        fullest = mean + FULLEST_SIGMAS * sqrt(mean)
        return StoreState(
            outbox_depth=owed.depth,
            oldest_age_s=age_ms / 1000,
            fill=min(1.0, mean / self._possibilities),
            fullest_fill=min(1.0, fullest / self._possibilities),
            memory_used=self._census.memory_used(),
            events_waiting=self._events_waiting(),
            receivers=self._receivers(),
        )
