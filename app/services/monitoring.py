"""What probes and Prometheus are told: is the service ready, what was counted, what is in the store."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

from app.domain.number import SHARDS, NumberGenerator
from app.errors import StorageUnavailable
from app.repositories.census import Census
from app.repositories.guard import Guard
from app.repositories.outbox import Outbox
from app.telemetry.metrics import Metrics, StoreState

LOOK_AGAIN_S = 5.0
"""Whoever asks more often gets the last answer again: a look costs 1,000 counts of Redis."""

FULLEST_SIGMAS = 4
"""Users fall into shards by a keyed digest, so a shard's count is binomial; of a thousand shards, the
fullest is above its mean by more than four standard deviations in 3 cases of 100."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """`smtp`: `ok`, or what is wrong with the mail server. `unwell`: threads that have died or hang."""

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
        mail_state: Callable[[], str] = lambda: "ok",
        unwell: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._metrics = metrics
        self._guard = guard
        self._outbox = outbox
        self._census = census
        self._possibilities = numbers.possibilities
        self._clock = clock
        self._mail_state = mail_state
        self._unwell = unwell
        self._looking = threading.Lock()
        self._looked_at = -LOOK_AGAIN_S
        self._state: StoreState | None = None

    def readiness(self) -> Readiness:
        """Makes one small write to Redis; the mail server and the threads are known without asking."""
        try:
            self._guard.ready()
        except StorageUnavailable:
            redis_ok = False
        else:
            redis_ok = True
        return Readiness(redis_ok, self._mail_state(), tuple(self._unwell()))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format; without the store's where Redis is away."""
        return self._metrics.exposition(self._look())

    def _look(self) -> StoreState | None:
        with self._looking:
            if self._clock() - self._looked_at >= LOOK_AGAIN_S:
                try:
                    self._guard.ready()
                    self._state = self._found()
                except StorageUnavailable:
                    self._state = None
                self._looked_at = self._clock()
            return self._state

    def _found(self) -> StoreState:
        owed = self._census.owed()
        age_ms = max(0, self._outbox.now_ms() - owed.oldest_ms) if owed.oldest_ms is not None else 0
        mean = self._census.records_at_most() / SHARDS
        fullest = mean + FULLEST_SIGMAS * sqrt(mean)
        return StoreState(
            outbox_depth=owed.depth,
            oldest_age_s=age_ms / 1000,
            fill=min(1.0, mean / self._possibilities),
            fullest_fill=min(1.0, fullest / self._possibilities),
        )
