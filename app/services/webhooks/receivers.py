"""Which receivers fail, and which want no more events. All processes soon know the same."""

import time
from collections.abc import Callable, Collection
from contextlib import suppress

from app.errors import StorageUnavailable
from app.repositories.events import Events

LOOK_AGAIN_S = 1.0

FAILING = "failing"
RECOVERED = "recovered"
GONE = "gone"
GONE_FIELD = f":{GONE}"
"""After the name of a service: the field that holds the start at which its receiver answered 410. It is a
field of its own, so that attempts under way, which may still fail or succeed, do not overwrite it."""


class Receivers:
    """The receivers of all services. One that answered 410 gets nothing more until a restart or a reload."""

    def __init__(self, events: Events, start: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`start`: what names this start or reload of the service, the same for all its processes."""
        self._events = events
        self._start = start
        self._clock = clock
        self._states: dict[str, str] = {}
        self._is_gone: set[str] = set()
        self._looked_at = -LOOK_AGAIN_S

    def look(self) -> None:
        """Learns what other processes know, at most once a second. What was known stays where that master
        is away."""
        now = self._clock()
        if now - self._looked_at >= LOOK_AGAIN_S:
            self._looked_at = now
            with suppress(StorageUnavailable):
                self._states = self._events.receivers()
            gone = {name for name, state in self._states.items() if state == self._start}
            self._is_gone |= {name.removesuffix(GONE_FIELD) for name in gone if name.endswith(GONE_FIELD)}

    @property
    def unwell(self) -> dict[str, str]:
        """What is wrong with receivers, by service: `failing` or `gone`."""
        failing = {service: FAILING for service, state in self._states.items() if state == FAILING}
        return failing | dict.fromkeys(self._is_gone, GONE)

    def failing(self, service: str) -> bool:
        """What was tried last for it was not taken, by any process, as was known a second ago at most."""
        return self._states.get(service) == FAILING

    def gone(self, service: str) -> bool:
        """It answered 410."""
        return service in self._is_gone

    def failed(self, service: str) -> None:
        """The courier says so after each attempt that was not taken: from now on each process has one at a
        time, until one is taken."""
        if not self.failing(service):
            self._states[service] = FAILING
            self._events.note_receiver(service, FAILING)

    def succeeded(self, service: str) -> None:
        """The courier says so after each event that was taken: where attempts had failed, all events that
        wait for the service are due now."""
        if self.failing(service):
            self._states[service] = RECOVERED
            self._events.note_receiver(service, RECOVERED)

    @property
    def recovered(self) -> set[str]:
        """Services that took an event after failed attempts. The process that sweeps makes due what waits for
        them, and then calls `woken`."""
        return {service for service, state in self._states.items() if state == RECOVERED}

    def woken(self, services: Collection[str]) -> None:
        """The waiting events of these services are due. A receiver that has failed again meanwhile fails."""
        self.look()
        if still := self.recovered.intersection(services):
            self._events.forget_receivers(still)
        for service in still:
            self._states.pop(service, None)

    def left(self, service: str) -> None:
        """It answered 410."""
        self._is_gone.add(service)
        self._events.note_receiver(service + GONE_FIELD, self._start)
