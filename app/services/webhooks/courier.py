"""The courier: delivers the events of one user, in their order, to the receiver of the service."""

import math
import random
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from app.domain.service import Endpoint, Service
from app.repositories.events import Claim, Events, Left, Queue
from app.repositories.scripts import LONGEST_EVENT_WAIT_MS
from app.services.waits import growing
from app.services.webhooks.receivers import Receivers
from app.telemetry.metrics import Metrics
from app.telemetry.traces import OFF, Traces
from app.webhook.answers import GONE, Gone, NotTaken
from app.webhook.webhooks import Webhooks

GIVE_UP_MS = 24 * 3_600_000
"""Age at which an event is tried no more."""

ASKED_IN_VAIN_S = 60.0
"""After a failed attempt, events of that age are given up unasked for so long, unless the receiver takes one
meanwhile: a receiver that hangs would cost 10 s for each of a long row."""

FIRST_WAIT_MS = 2_500
"""The first wait is at most so long; waits double up to 15 minutes, and jitter spreads them. With the time
until a sweep finds the event, the first repetition comes within 5 s."""

IN_A_ROW = 10
"""Events of one user, before other users have their turn."""

NOT_CONFIGURED = "service not configured"
"""The events of such a service wait: it may be configured again."""

ACCIDENT = "accident"
NOT_ASKED = "receiver failed a moment ago"

log = structlog.get_logger()


class Courier:
    """Makes attempts. An event that was not taken waits in Redis, whatever goes wrong here."""

    def __init__(
        self,
        events: Events,
        webhooks: Webhooks,
        receivers: Receivers,
        service: Callable[[str], Service | None],
        metrics: Metrics,
        traces: Traces = OFF,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`service`: the service in force with an id."""
        self._events = events
        self._webhooks = webhooks
        self._receivers = receivers
        self._service = service
        self._metrics = metrics
        self._traces = traces
        self._jitter = jitter
        self._clock = clock
        self._failed_at: dict[str, float] = {}

    def deliver(self, queue: Queue) -> bool:
        """Delivers what is due of one user; True where more is. Raises StorageUnavailable."""
        for _ in range(IN_A_ROW):
            self._receivers.look()
            service = self._service(queue.service)
            if service is not None and (service.events is None or self._receivers.gone(queue.service)):
                self._drop(queue)
                return False
            claim = self._events.claim(queue)
            if claim is None:
                return False
            with self._traces.work("event"):
                self._traces.note("cedula.event", claim.event.kind.type)
                left = self._attempt(queue, claim, service.events if service else None)
            if left is not Left.MORE:
                return False
        return True

    def _attempt(self, queue: Queue, claim: Claim, endpoint: Endpoint | None) -> Left:
        if _is_late(claim) and self._failed_a_moment_ago(queue.service):
            self._traces.note("cedula.event_error", NOT_ASKED)
            return self._give_up(queue, claim, NOT_ASKED)
        try:
            self._post(endpoint, claim)
        except Gone:
            self._traces.note("cedula.event_error", f"status {GONE}")
            self._receivers.left(queue.service)
            log.error("events_gone", service=queue.service, hint="its receiver answered 410")
            for each in self._events.queues_of(queue.service):
                self._drop(each)
            return Left.LOST
        except NotTaken as fault:
            return self._put_off(queue, claim, fault.code)
        except Exception as error:  # noqa: BLE001 no error of one event may end the courier
            with suppress(Exception):  # not even that of a log
                log.error("courier_failed", service=queue.service, exception=error)
            return self._put_off(queue, claim, ACCIDENT)
        left = self._events.settle(queue, claim)
        self._metrics.event(queue.service, "taken")
        self._receivers.succeeded(queue.service)
        return left

    def _post(self, endpoint: Endpoint | None, claim: Claim) -> None:
        if endpoint is None:
            raise NotTaken(NOT_CONFIGURED)
        self._webhooks.post(endpoint, claim.event)

    def _put_off(self, queue: Queue, claim: Claim, code: str) -> Left:
        self._receivers.failed(queue.service)
        self._failed_at[queue.service] = self._clock()
        self._traces.note("cedula.event_error", code)
        if _is_late(claim):
            return self._give_up(queue, claim, code)
        log.warning("event_put_off", service=queue.service, kind=claim.event.kind, fault=code)
        self._metrics.event(queue.service, "put_off")
        return self._events.settle(queue, claim, self._wait_ms(claim.attempts))

    def _failed_a_moment_ago(self, service: str) -> bool:
        """Whether an attempt failed here, and the receiver has taken nothing from any process since."""
        failed_at = self._failed_at.get(service, -math.inf)
        return self._receivers.failing(service) and self._clock() < failed_at + ASKED_IN_VAIN_S

    def _give_up(self, queue: Queue, claim: Claim, code: str) -> Left:
        log.error("event_given_up", service=queue.service, kind=claim.event.kind, fault=code)
        self._metrics.event(queue.service, "given_up")
        return self._events.settle(queue, claim)

    def _wait_ms(self, attempts: int) -> int:
        return int(growing(FIRST_WAIT_MS, LONGEST_EVENT_WAIT_MS, attempts - 1, self._jitter))

    def _drop(self, queue: Queue) -> None:
        self._metrics.event(queue.service, "dropped", self._events.drop(queue))


def _is_late(claim: Claim) -> bool:
    return claim.now_ms - claim.event.at_ms >= GIVE_UP_MS
