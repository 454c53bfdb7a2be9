"""The messaging service: mails numbers, beside the requests that wait for them.

A bounded number of senders, each with its own kept connection to the mail server, work on a queue of jobs.
What cannot be mailed now stays in the outbox, from which the relay brings it back.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from app.domain.registration import Stored
from app.mail.messages import Messages
from app.mail.smtp import MAX_IDLE_S, MailFault, SmtpSession
from app.repositories.outbox import Outbox
from app.repositories.users import fresh_token
from app.services.delivery.breaker import MailBreaker
from app.services.delivery.queue import Answer, Job, JobQueue
from app.services.delivery.worker import Courier
from app.telemetry.metrics import Metrics

QUEUE_PER_CONNECTION = 32
"""Requests that may wait for a connection. Beyond them a registration only stands in the outbox."""

PATIENT_PER_CONNECTION = 4
"""Mails that nobody waits for and that may wait for a connection with a lease, by the same token. Fewer: the
older they grow, the likelier the registration has been replaced meanwhile."""

ENOUGH_FOR_S = 30.0
"""After a mail server said that it takes no more connections, as many as there are do."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SendPlan:
    """How a registration is to be mailed. `lease_ms`: the lease to take with it; 0 = it is due for everybody
    at once. `made_at`: monotonic seconds. `waits`: the request waits for the mail server's answer."""

    lease_ms: int
    made_at: float = 0.0
    waits: bool = True


class MessagingService:
    """Sends what is registered, and keeps what cannot be sent for later."""

    def __init__(
        self,
        outbox: Outbox,
        messages: Messages,
        open_session: Callable[[], SmtpSession],
        *,
        connections: int,
        timeout_s: float,
        metrics: Metrics | None = None,
    ) -> None:
        self._outbox = outbox
        self._open_session = open_session
        self._connections = connections
        self._timeout_s = timeout_s
        self._queue = JobQueue()
        self._breaker = MailBreaker(metrics=metrics)
        self._courier = Courier(
            outbox, messages, self._queue, self._breaker, alone=self._alone, metrics=metrics
        )
        self._senders: dict[threading.Thread, SmtpSession] = {}
        self._enough_until = 0.0
        self._starting = threading.Lock()

    # For requests

    def plan(self, *, wait: bool = True) -> SendPlan:
        """Whether the mail can be begun beside the request: not while the mail server is down, or when too
        many mails wait already."""
        if wait:
            crowded = len(self._queue) > self._connections * QUEUE_PER_CONNECTION
        else:
            crowded = self._queue.patient > self._connections * PATIENT_PER_CONNECTION
        beside = not (self._breaker.open or crowded or self._queue.stuck(self._timeout_s))
        return SendPlan(self._outbox.lease_ms if beside else 0, time.monotonic(), waits=wait)

    def send(self, stored: Stored, plan: SendPlan) -> Answer:
        """Begins to mail a registration, and waits for the mail server up to the mail time-out.

        PENDING when it is still under way then, the request does not wait or the mail is not begun beside it.
        UNKNOWN when it was refused for good and Redis failed just then.
        """
        user_id = stored.registration.user_id
        if stored.owner is None:  # with a plan to send, another sender is at work: it will look after it
            self._queue.remember(user_id, plan.lease_ms / 1000)
            self._call_sender()
            return Answer.PENDING
        job = Job(user_id, stored.owner, stored.registration, plan.made_at, asked=plan.waits)
        if not self._queue.put(job):
            self._courier.give_back(job)
            return Answer.PENDING
        self._call_sender()
        return job.wait(self._timeout_s) if plan.waits else Answer.PENDING

    @property
    def state(self) -> str:
        """For people who look at readiness: `ok`, or what is wrong, without anything personal."""
        return self._breaker.state

    # For the relay

    def remember(self, user_id: str, wait_s: float) -> None:
        """An address whose mail will be due; this process will see to it."""
        self._queue.remember(user_id, wait_s)

    def renew_leases(self) -> None:
        """Raises StorageUnavailable."""
        self._courier.leases.renew()

    def wake(self) -> None:
        """Lets senders take what has become due; finds out whether a mail server that was down is back."""
        if self._breaker.trial_due():
            threading.Thread(target=self._try_server, daemon=True, name="mail-trial").start()
        if not self._breaker.open:
            self._queue.wake()
            self._start_senders(self._connections)

    def close(self, timeout_s: float) -> None:
        """Finishes the mails in hand and gives the rest back to the outbox."""
        left = self._queue.close()
        for job in left:
            job.tell(Answer.PENDING)
        deadline = time.monotonic() + timeout_s
        for job in left:
            if not self._courier.give_back(job):
                break  # not one time-out of Redis for each
        for sender in list(self._senders):
            sender.join(max(0.0, deadline - time.monotonic()))

    # The senders

    def _call_sender(self) -> None:
        if not self._breaker.open:
            self._queue.wake()
        self._start_senders(1)

    def _start_senders(self, most: int) -> None:
        """As many senders more as find something to do, within the bound."""
        if len(self._senders) >= self._connections:
            return
        with self._starting:
            missing = self._queue.senders_missing(only_requests=self._breaker.open)
            if self._senders and time.monotonic() < self._enough_until:
                return
            for _ in range(min(missing, most, self._connections - len(self._senders))):
                session = self._open_session()
                sender = threading.Thread(target=self._work, args=(session,), daemon=True, name="mail-sender")
                try:
                    sender.start()
                except RuntimeError:  # no more threads to be had; those there are go on
                    log.warning("sender_not_started", senders=len(self._senders))
                    return
                self._senders[sender] = session

    def _work(self, session: SmtpSession) -> None:
        while not self._queue.closed:
            found = self._queue.take(MAX_IDLE_S, only_requests=self._breaker.open)
            if found is None:
                session.close_if_idle()
            else:
                job = found if isinstance(found, Job) else Job(found, fresh_token())
                if not self._courier.carry(job, session):
                    self._retire()
                    return
        session.close()

    def _retire(self) -> None:
        """The mail server takes no more connections: one sender less, and no new ones for a while."""
        with self._starting:
            self._senders.pop(threading.current_thread(), None)
            self._enough_until = time.monotonic() + ENOUGH_FOR_S
        log.warning("mail_connections_limited", connections=len(self._senders))

    def _alone(self, session: SmtpSession) -> bool:
        return not any(other.connected for other in list(self._senders.values()) if other is not session)

    def _try_server(self) -> None:
        session = self._open_session()
        try:
            session.probe()
        except MailFault as fault:
            self._breaker.faulted(fault)
        else:
            self._breaker.reached()
        finally:
            session.close()
        self.wake()
