"""The outbox relay: brings back what a process has lost sight of, in every process that serves.

One process at a time sweeps the shards. A sweep looks ahead to the next one, so that an entry is claimed
when it falls due and not when it is found.
"""

import os
import threading
import time

import structlog

from app.errors import StorageUnavailable
from app.numbers import SHARDS
from app.repositories.guard import Guard
from app.repositories.outbox import Outbox
from app.repositories.users import fresh_token
from app.services.messaging import MessagingService

TICK_S = 0.2
"""How late a retry can be. A tick without work costs microseconds."""

SHARDS_A_TIME = 100
"""One pipeline: a few hundred microseconds of Redis, ten times a sweep."""

ENTRIES_A_SHARD = 100
"""Of one shard in one sweep: 100,000 entries a sweep in all, more than senders can mail meanwhile."""

log = structlog.get_logger()


class Relay:
    """A thread that renews leases, wakes senders and, where this process has the lock, sweeps."""

    def __init__(self, outbox: Outbox, messaging: MessagingService, guard: Guard) -> None:
        self._outbox = outbox
        self._messaging = messaging
        self._guard = guard
        self._owner = fresh_token()
        self._sweep_s = outbox.lease_ms / 1000 / 2
        self._sweeping = False
        self._next_batch_at = 0.0
        self._next_shard = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def start(self) -> None:
        """Starts the thread of this process, once."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._thread = threading.Thread(target=self._run, daemon=True, name="outbox-relay")
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(self._sweep_s)

    def _run(self) -> None:
        while not self._stop.wait(TICK_S):
            try:
                self._messaging.renew_leases()
                self._messaging.wake()
                self._sweep_if_time()
            except StorageUnavailable:
                self._sweeping = False
            except Exception as error:  # the relay must outlive whatever one round does to it
                log.error("relay_failed", error=type(error).__name__)

    def _sweep_if_time(self) -> None:
        now = time.monotonic()
        if now < self._next_batch_at:
            return
        self._next_batch_at = now + self._sweep_s * SHARDS_A_TIME / SHARDS
        if not self._outbox.hold_relay(self._owner, int(self._sweep_s * 1000)):
            self._sweeping = False
        elif self._sweeping:
            self._sweep(SHARDS_A_TIME)
        else:
            self._sweeping = True
            self._guard.check_again()
            self._sweep(SHARDS)

    def _sweep(self, count: int) -> None:
        """Looks through the next shards for what falls due before they are looked through again."""
        now_ms = self._outbox.now_ms()
        horizon_ms = now_ms + int(self._sweep_s * 1000)
        for _ in range(count // SHARDS_A_TIME):
            shards = range(self._next_shard, self._next_shard + SHARDS_A_TIME)
            self._next_shard = (self._next_shard + SHARDS_A_TIME) % SHARDS
            for entry in self._outbox.due(shards, horizon_ms, ENTRIES_A_SHARD):
                self._messaging.remember(entry.user_id, max(0.0, (entry.due_ms - now_ms) / 1000))
