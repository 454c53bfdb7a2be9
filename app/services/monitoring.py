"""What Prometheus is told: what was counted, and the state of the store when it is asked."""

import threading
import time
from collections.abc import Callable
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


class Monitoring:
    """Answers a scrape at a bounded cost, whatever the number of registrations."""

    def __init__(
        self,
        metrics: Metrics,
        guard: Guard,
        outbox: Outbox,
        census: Census,
        numbers: NumberGenerator,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._guard = guard
        self._outbox = outbox
        self._census = census
        self._possibilities = numbers.possibilities
        self._clock = clock
        self._looking = threading.Lock()
        self._looked_at = -LOOK_AGAIN_S
        self._state: StoreState | None = None

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
