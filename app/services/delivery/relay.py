"""The outbox relay: brings back what a process has lost sight of, in every process that serves.

One process at a time sweeps the shards. A sweep looks ahead to the next one, so that an entry is claimed
when it falls due and not when it is found.
"""

import threading
import time
from contextlib import suppress

import structlog

from app.domain.number import SHARDS
from app.errors import StorageUnavailable
from app.repositories.guard import Guard
from app.repositories.outbox import GIVE_UP_MS, Outbox
from app.repositories.users import fresh_token
from app.services.messaging import MessagingService

TICK_S = 0.2
"""How late a retry can be. A tick without work costs microseconds."""

SHARDS_A_TIME = 100
"""One pipeline: a few hundred microseconds of Redis, ten times a sweep."""

ENTRIES_A_SHARD = 100
"""Of one shard in one sweep: 100,000 entries a sweep in all, more than senders can mail meanwhile."""

STOP_WITHIN_S = 5.0
"""What the thread may still be waiting for is an answer of Redis."""

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

    def start(self) -> None:
        """Starts the thread, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="outbox-relay")
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and lets another process sweep. Again, or without a start, it does nothing."""
        thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None:
            thread.join(STOP_WITHIN_S)
            with suppress(StorageUnavailable):
                self._outbox.hold_relay(self._owner, 0)

    def _run(self) -> None:
        while not self._stop.wait(TICK_S):
            try:
                self._messaging.renew_leases()
                self._messaging.wake()
                self._sweep_if_time()
            except StorageUnavailable:
                self._sweeping = False
            except Exception as error:  # noqa: BLE001 the relay must outlive whatever one round does to it
                log.error("relay_failed", exception=error)

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
            self._sweep(SHARDS)

    def _sweep(self, count: int) -> None:
        """Looks through the next shards for what falls due before they are looked through again."""
        if self._next_shard == 0:
            self._guard.check_again()  # a Redis that was emptied has lost the value, too
        now_ms = self._outbox.now_ms()
        horizon_ms = now_ms + int(self._sweep_s * 1000)
        for _ in range(count // SHARDS_A_TIME):
            shards = range(self._next_shard, self._next_shard + SHARDS_A_TIME)
            self._next_shard = (self._next_shard + SHARDS_A_TIME) % SHARDS
            for entry in self._outbox.due(shards, horizon_ms, ENTRIES_A_SHARD):
                if now_ms - entry.due_ms > GIVE_UP_MS:  # the mail server was away for all that time
                    self._outbox.claim(entry.user_id, self._owner)
                else:
                    self._messaging.remember(entry.user_id, (entry.due_ms - now_ms) / 1000)
