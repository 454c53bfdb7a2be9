"""The service of events: tells services what becomes of their registrations, in threads of its own.

Promise: nothing here makes a request or a mail wait. The door of the room `webhooks`: it builds the parts,
and is told when an event may have been written.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress

from app.domain.service import Service
from app.errors import StorageUnavailable
from app.repositories.events import Events, Queue
from app.repositories.guard import Guard
from app.repositories.scripts import LONGEST_EVENT_WAIT_MS
from app.services.webhooks.courier import Courier
from app.services.webhooks.queue import MAX_COURIERS, EventQueue
from app.services.webhooks.receivers import Receivers
from app.services.webhooks.relay import EventRelay
from app.telemetry.metrics import Metrics
from app.telemetry.traces import OFF, Traces
from app.threads import WatchedThread, stop_all
from app.webhook.webhooks import Webhooks

REST_S = 5.0

STOP_WITHIN_S = 1.0
"""An attempt that lasts longer is given up: another process claims its event again."""


class EventService:
    """Keeps couriers at work on the events that are due."""

    def __init__(
        self,
        events: Events,
        guard: Guard,
        webhooks: Webhooks,
        *,
        start: str,
        service: Callable[[str], Service | None],
        listening: Callable[[], bool],
        metrics: Metrics,
        traces: Traces = OFF,
    ) -> None:
        """`start`: as for Receivers. `service`: the service in force with an id. `listening`: whether any of
        them wants events."""
        self._events = events
        self._webhooks = webhooks
        self._service = service
        self._listening = listening
        self._receivers = Receivers(events, start)
        self._queue = EventQueue(self._receivers.failing)
        self._courier = Courier(events, webhooks, self._receivers, service, metrics, traces)
        self._relay = EventRelay(
            events, guard, self._queue, self._receivers, listening, self._tend, webhooks.close_idle, metrics
        )
        self._couriers: list[WatchedThread] = []
        self._delivers = False

    def noticed(self, service_id: str, user_id: str) -> None:
        """An event of this user may have been written. A process that was not started, such as a command,
        leaves it to those that serve: it would end before its courier."""
        if not self._delivers:
            return
        service = self._service(service_id)
        if service is not None and service.events is not None:
            self._queue.put(Queue(service_id, user_id))
            self._tend()

    def unwell(self) -> Mapping[str, str]:
        """What is wrong with receivers, by service: `failing` or `gone`. Raises StorageUnavailable."""
        if self._listening():
            self._receivers.look()
        return self._receivers.unwell

    def waiting(self) -> Mapping[str, int]:
        """How many events wait, by service. Raises StorageUnavailable."""
        return self._events.published() if self._listening() else {}

    @property
    def threads(self) -> list[WatchedThread]:
        return [self._relay.thread, *self._couriers]

    def start(self) -> None:
        """Starts the relay; couriers start when there is work."""
        self._delivers = True
        self._relay.start()

    def stop(self) -> None:
        """Ends the threads. What is not delivered stays in Redis."""
        self._relay.stop()
        self._queue.close()
        stop_all(self._couriers, STOP_WITHIN_S)
        self._webhooks.close()

    def _tend(self) -> None:
        """Starts a courier where events are due and no courier rests."""
        if len(self._couriers) < MAX_COURIERS and self._queue.needs_more:
            courier = WatchedThread("event-courier", self._work)
            self._couriers.append(courier)  # first: starting it lets other threads run, which count couriers
            try:
                courier.start()
            except RuntimeError:  # the system has no more threads; those that run go on
                self._couriers.remove(courier)

    def _work(self, thread: WatchedThread) -> None:
        while not (thread.stopping.is_set() or self._queue.closed):
            queue = self._queue.take(REST_S)
            if queue is None:
                continue
            more = False
            try:
                self._tend()  # more may be due
                more = self._courier.deliver(queue)
            except StorageUnavailable as error:  # the relay finds what is due
                if error.of_one_key:
                    with suppress(StorageUnavailable):
                        self._events.put_off([queue], LONGEST_EVENT_WAIT_MS)
            finally:
                self._queue.done(queue)
            if more:
                self._queue.put(queue)
