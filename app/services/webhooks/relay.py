"""The relay of events: one thread in every serving process that keeps couriers at work.

One process at a time sweeps the events of all shards: those that were put off, those of a process that died,
and registrations that have ended.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import structlog

from app.domain.number import SHARDS
from app.errors import StorageUnavailable
from app.repositories.events import USERS_A_SHARD, Events, Queue
from app.repositories.guard import Guard
from app.repositories.scripts import LONGEST_EVENT_WAIT_MS
from app.repositories.users import fresh_token
from app.services.webhooks.queue import EventQueue
from app.services.webhooks.receivers import Receivers
from app.telemetry.metrics import Metrics
from app.threads import WatchedThread

BEGIN_AFTER_S = 1.0
"""A process that forks before this serves no requests: it is the master of `gunicorn --preload`."""

SWEEP_S = 2.0
"""How late an event can be that no process remembers."""

LOCK_MS = 6_000
"""Three sweeps: then another process takes over."""

SLOW_SWEEPS = 10
"""Each tenth sweep, so every 20 s, also looks for registrations that have ended."""

SHARDS_A_TIME = 100

ENDS_A_TIME = SHARDS_A_TIME * USERS_A_SHARD
"""Of so many shards together, in one sweep: a few seconds of it."""

MAX_WAITING = 95_000
"""Events of one service; from here on further ones are left out. The promised bound is 100,000: 5,000 may be
written between two sweeps."""

CROWDED_MS = 60_000
"""The longest wait of events for which a healthy receiver has no place in the queue."""

SILENT_S = 60.0
"""A sweep takes a second; one that lasts longer hangs."""

STOP_WITHIN_S = 5.0

log = structlog.get_logger()


class EventRelay:
    """The thread. It asks Redis nothing while no service wants events."""

    def __init__(
        self,
        events: Events,
        guard: Guard,
        queue: EventQueue,
        receivers: Receivers,
        listening: Callable[[], bool],
        tend: Callable[[], None],
        close_idle: Callable[[], None],
        metrics: Metrics,
    ) -> None:
        """`listening`: whether any service wants events. `tend`: keeps the couriers at work. `close_idle`:
        closes connections that have rested for long."""
        self._events = events
        self._guard = guard
        self._queue = queue
        self._receivers = receivers
        self._listening = listening
        self._tend = tend
        self._close_idle = close_idle
        self._metrics = metrics
        self._owner = fresh_token()
        self._sweeps = 0
        self._full: set[str] = set()
        self.thread = WatchedThread("event-relay", self._run, silent_s=SILENT_S)

    def start(self) -> None:
        """Starts the thread, once; it begins to work after a moment."""
        self.thread.start()

    def stop(self) -> None:
        """Ends the thread, and lets another process sweep."""
        if self.thread.stopping.is_set():
            return
        self.thread.stop(STOP_WITHIN_S)
        if self._sweeps:
            with suppress(StorageUnavailable):
                self._events.hold_relay(self._owner, 0)

    def _run(self, thread: WatchedThread) -> None:
        wait_s = BEGIN_AFTER_S
        while not thread.stopping.wait(wait_s):
            thread.beat()
            started = time.monotonic()
            if self._listening():
                with suppress(StorageUnavailable):  # logged where it was raised
                    self._guard.check()
                    self._receivers.look()
                    self._tend()
                    if self._events.hold_relay(self._owner, LOCK_MS):
                        self._sweep(thread)
            self._close_idle()
            wait_s = max(0.1, SWEEP_S - (time.monotonic() - started))

    def _sweep(self, thread: WatchedThread) -> None:
        slow = self._sweeps % SLOW_SWEEPS == 0
        self._sweeps += 1
        with suppress(StorageUnavailable):
            self._count()
        if slow:
            with suppress(StorageUnavailable):
                self._events.keep_receivers()
        recovered, woken = self._receivers.recovered, True
        for shards in _shards():
            thread.beat()
            if recovered:
                woken = self._events.wake(recovered, shards) and woken
            due = self._events.due(shards)
            if slow:
                self._end(shards, thread)
                due += self._events.due_never(shards)
            self._put_off([queue for queue in due if not self._queue.put(queue)])
            self._tend()
        if recovered and woken:  # last: if this process dies before, the next one does all of it
            self._receivers.woken(recovered)

    def _end(self, shards: range, thread: WatchedThread) -> None:
        """Tells of registrations that have ended. It asks again while a shard may have more: all addresses of
        one mailbox are in one shard."""
        left = ENDS_A_TIME
        while left > 0:
            user_ids = self._events.expired(shards)
            for user_id in user_ids:
                thread.beat()  # there may be thousands, and Redis may be slow
                self._note_end(user_id)
            left = left - len(user_ids) if len(user_ids) >= USERS_A_SHARD else 0

    def _note_end(self, user_id: str) -> None:
        try:
            self._events.note_expiry(user_id)
        except StorageUnavailable as error:
            if not error.of_one_key:
                raise
            self._events.put_off_end(user_id)

    def _put_off(self, queues: list[Queue]) -> None:
        """Lets queues wait that have no place here. They wait longer where the receiver fails, and are due as
        soon as it takes an event."""
        for failing, longest_ms in ((True, LONGEST_EVENT_WAIT_MS), (False, CROWDED_MS)):
            some = [queue for queue in queues if self._receivers.failing(queue.service) is failing]
            self._events.put_off(some, longest_ms)

    def _count(self) -> None:
        """Counts and bounds the events that wait for each service."""
        waiting, dropped = self._events.count()
        self._events.publish(waiting)
        for service, count in dropped.items():
            self._metrics.event(service, "dropped", count)
        full = {service for service, count in waiting.items() if count >= MAX_WAITING}
        for service in full:
            self._events.leave_out(service)
        for service in full - self._full:
            log.error("events_full", service=service, hint="further events are left out until it takes some")
        self._full = full


def _shards() -> Iterator[range]:
    return (range(first, first + SHARDS_A_TIME) for first in range(0, SHARDS, SHARDS_A_TIME))
