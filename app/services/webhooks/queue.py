"""Which users' events are due in this process: one queue for each service, and the services take turns."""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from app.repositories.events import Queue

MAX_COURIERS = 64
"""Attempts of this process at a time, for all services."""

AT_ONCE = 16
"""Attempts of this process at one receiver at a time; one while the receiver fails. Where many are under way,
a service gets half of those that are left, so that slow receivers leave some for the next service."""

AT_ONCE_FAILING = 32
"""Attempts of this process at all failing receivers together: half is left for the others."""

MAX_QUEUED = 1000
"""Users of one service that are remembered. Redis knows the others, and a sweep finds them."""

MAX_QUEUED_FAILING = 100


class EventQueue:
    """Users whose events are due. A receiver that is slow or fails holds up its own service only.

    `take` and `done` enclose an attempt."""

    def __init__(self, failing: Callable[[str], bool]) -> None:
        self._failing = failing
        self._changed = threading.Condition()
        self._services: OrderedDict[str, deque[Queue]] = OrderedDict()
        self._queued: set[Queue] = set()
        self._running: Counter[str] = Counter()
        self._resting = 0
        self.closed = False

    def put(self, queue: Queue) -> bool:
        """False where too many of the same service are queued."""
        with self._changed:
            if queue in self._queued:
                return True
            if self.closed:
                return False
            of_service = self._services.setdefault(queue.service, deque())
            most = MAX_QUEUED_FAILING if self._failing(queue.service) else MAX_QUEUED
            if len(of_service) >= most:
                return False
            of_service.append(queue)
            self._queued.add(queue)
            self._changed.notify()
            return True

    def take(self, timeout_s: float) -> Queue | None:
        """The user whose turn it is; None after the time-out, or when the queue is closed."""
        with self._changed:
            self._resting += 1
            try:
                self._changed.wait_for(lambda: self.closed or self._next() is not None, timeout_s)
            finally:
                self._resting -= 1
            service = None if self.closed else self._next()
            if service is None:
                return None
            queue = self._services[service].popleft()
            self._queued.remove(queue)
            self._services.move_to_end(service)
            if not self._services[service]:
                del self._services[service]
            self._running[service] += 1
            return queue

    def done(self, queue: Queue) -> None:
        """The attempt is over."""
        with self._changed:
            self._running[queue.service] -= 1
            if not self._running[queue.service]:
                del self._running[queue.service]
            self._changed.notify()

    @property
    def needs_more(self) -> bool:
        """A user has a turn, and no courier rests."""
        with self._changed:
            return not (self.closed or self._resting) and self._next() is not None

    def close(self) -> None:
        """Ends the queue. The events stay in Redis."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _next(self) -> str | None:
        """The service whose turn it is."""
        left = MAX_COURIERS - self._running.total()
        at_failing = sum(count for service, count in self._running.items() if self._failing(service))
        most_failing = 1 if at_failing < AT_ONCE_FAILING else 0
        most = min(AT_ONCE, 1 + left // 2)
        for service in self._services:
            if self._running[service] < (most_failing if self._failing(service) else most):
                return service
        return None
