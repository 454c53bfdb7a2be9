"""The messaging service of the diagram in docs/architecture.md: mails numbers, beside the requests that wait.

Promise: what `send` is given is mailed or stands in the outbox, and its request waits MAIL_TIMEOUT at most.
The door of the room `delivery` (docs/delivery.md): it builds the parts, takes registrations in and waits for
their mails.
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from app.domain.registration import Cause, Delivery, Registration, Stored
from app.errors import AddressRefused
from app.mail.messages import Messages
from app.mail.smtp import SmtpMail, SmtpSession
from app.repositories.guard import Guard
from app.repositories.outbox import Outbox
from app.services.delivery import sandbox
from app.services.delivery.breaker import MailBreaker
from app.services.delivery.leases import Leases
from app.services.delivery.queue import Job, JobQueue
from app.services.delivery.relay import Relay
from app.services.delivery.senders import Senders
from app.services.delivery.worker import TracedWorker, Worker
from app.telemetry.metrics import Metrics, Stage
from app.telemetry.traces import OFF, Traces
from app.threads import WatchedThread

AWAITED_PER_CONNECTION = 32
"""Awaited mails that may wait for a connection. Further registrations only stand in the outbox."""

UNAWAITED_PER_CONNECTION = 4
"""Other mails that may wait for a connection with a lease. They are fewer because an older mail is likelier
to have been replaced meanwhile."""


class SendPlan(NamedTuple):
    """How a registration is to be mailed. `lease_ms`: the lease to take with it; 0 = none, any sender may
    mail it at once. `leased_at`, `awaited`: as in `Job`."""

    lease_ms: int
    leased_at: float = 0.0
    awaited: bool = True


class MessagingService:
    """Sends what is registered, and keeps what cannot be sent for later."""

    def __init__(
        self,
        outbox: Outbox,
        guard: Guard,
        messages: Messages,
        mail: SmtpMail,
        *,
        connections: int,
        timeout_s: float,
        metrics: Metrics,
        happened: Callable[[str, str, Stage], None],
        traces: Traces = OFF,
    ) -> None:
        """`happened`: told how far a registration has come, by service and user."""
        self._lease_ms = outbox.lease_ms
        self._connections = connections
        self._timeout_s = timeout_s
        self._mail = mail
        self._traces = traces
        self._queue = JobQueue()
        self._breaker = MailBreaker(metrics)
        leases = Leases(outbox)
        parts = outbox, messages, self._queue, self._breaker, leases, metrics, happened
        self._worker = TracedWorker(traces, *parts) if traces.on else Worker(*parts)
        self._senders = Senders(mail, self._queue, self._breaker, self._worker, connections)
        self._relay = Relay(
            outbox, guard, mail, self._queue, self._breaker, leases, self._senders, self._worker, traces
        )
        self._slow = threading.BoundedSemaphore(connections)
        self._stands_by = False

    # For requests

    def plan(self, *, awaited: bool = True, test: bool = False) -> SendPlan:
        """Whether the mail can be begun beside the request: not while the mail server is down, or when too
        many mails wait already. Those of test services need neither server nor queue."""
        bound = self._connections * (AWAITED_PER_CONNECTION if awaited else UNAWAITED_PER_CONNECTION)
        crowded = self._queue.waiting(awaited=awaited) > bound
        beside = test or not (self._breaker.open or crowded or self._queue.stuck(self._timeout_s))
        return SendPlan(self._lease_ms if beside else 0, leased_at=time.monotonic(), awaited=awaited)

    def send(self, stored: Stored, plan: SendPlan, cause: Cause) -> Delivery:
        """Begins to mail a registration, and waits for the mail server up to the mail time-out.

        PENDING when the mail is still under way then, is not awaited or is not begun beside the request, and
        when the registration was replaced or ended while it was under way.
        Raises AddressRefused, and StorageUnavailable when Redis failed while the refusal was written.
        """
        if self._stands_by:
            self._stands_by = False
            self._relay.start()
        if self._traces.on:
            cause = cause._replace(traceparent=self._traces.here())
        user_id = stored.registration.user_id
        if stored.owner is None:
            # If we asked for a lease, another sender holds it and mails the new number: we look again when it
            # ends. Else the mail is due now.
            self._queue.remember(user_id, plan.lease_ms / 1000, cause)
            if not self._breaker.open:
                self._queue.wake()
                self._senders.add()
            return Delivery.PENDING
        job = Job(
            user_id,
            stored.owner,
            stored.registration,
            leased_at=plan.leased_at,
            awaited=plan.awaited,
            cause=cause,
        )
        if stored.registration.test:
            return self._rehearse(job, stored.registration)
        if not self._queue.put(job):
            self._worker.give_back(job)
            return Delivery.PENDING
        try:
            self._senders.add()
            return _accepted(job.wait(self._timeout_s)) if plan.awaited else Delivery.PENDING
        except BaseException:  # a killed request cannot be told that its address was refused
            job.leave()
            raise

    def _rehearse(self, job: Job, registration: Registration) -> Delivery:
        """Does the job of a test service in the request's own thread, as it mails nothing."""
        if sandbox.is_slow(registration.address) and job.awaited:
            self._be_slow()
            job.tell(Delivery.PENDING)
        self._worker.deliver(job, SmtpSession(self._mail))
        return _accepted(job.wait(0)) if job.awaited else Delivery.PENDING

    def _be_slow(self) -> None:
        """Waits as for a slow mail server. At most as many requests at a time as there are senders: else
        those of one test service could take every place for a request."""
        if self._slow.acquire(blocking=False):
            try:
                time.sleep(self._timeout_s)
            finally:
                self._slow.release()

    # For the process

    @property
    def state(self) -> str:
        """What is known of the mail server: `ok`, or what is wrong, without anything personal."""
        return self._breaker.state

    @property
    def heard_at(self) -> float:
        """When the state was heard (monotonic seconds), 0 = never."""
        return self._breaker.heard_at

    @property
    def threads(self) -> list[WatchedThread]:
        """Relay and senders, to be watched."""
        return [*self._relay.threads, *self._senders.threads]

    @property
    def begun(self) -> bool:
        """The relay is at work. In a process that only forks others it never is."""
        return self._relay.begun

    def start(self) -> None:
        """Starts the relay; senders start when there is work."""
        self._relay.start()

    def stand_by(self) -> None:
        """Starts the relay with the first registration."""
        self._stands_by = True

    def close(self, timeout_s: float) -> None:
        """Ends the relay, finishes the mails in hand and gives the rest back to the outbox."""
        self._relay.stop()
        left = self._queue.close()
        for job in left:
            job.tell(Delivery.PENDING)
        deadline = time.monotonic() + timeout_s
        for job in left:
            if not self._worker.give_back(job):
                break  # not one time-out of Redis for each
        self._senders.stop(max(0.0, deadline - time.monotonic()))


def _accepted(delivery: Delivery) -> Delivery:
    """Raises AddressRefused."""
    if delivery is Delivery.REFUSED:
        raise AddressRefused("The mail server refused this address for good")
    return delivery
