"""The worker: takes one mail from its lease to its settling, and the next one if the number was replaced.

Promise: the last mail that it sends to an address carries the live number. A job that no request waits for
and that is older than OLDEST_UNAWAITED_S is claimed again before it goes: its registration may have been
replaced or erased. Settling tells whether it was replaced while its mail was under way; then its request is
told PENDING, as it is told only what Redis says, too.
"""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import structlog

from app.domain.registration import Contents, Delivery, Registration
from app.errors import ServiceUnknown, StorageUnavailable
from app.mail.messages import Messages
from app.mail.smtp import Blame, MailFault, SmtpSession
from app.repositories.outbox import Outbox, Settled
from app.repositories.users import fresh_token
from app.services.delivery import sandbox
from app.services.delivery.breaker import MailBreaker
from app.services.delivery.leases import Leases
from app.services.delivery.queue import Job, JobQueue
from app.services.waits import growing
from app.telemetry.metrics import Metrics, Stage
from app.telemetry.traces import Traces

FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 900.0
"""Retries wait at most 2 s, then double up to 15 minutes; jitter spreads them."""

SENDS_IN_A_ROW = 4
"""Mails to one address that registers again and again, before the sender leaves the rest to the relay."""

SETTLE_AGAIN_S = 0.25

SERVICE_UNKNOWN = MailFault(Blame.MOMENT, "service not configured")
"""Its mails wait: it may be configured again."""

UNREADABLE = "The record does not open: was it sealed with a key that is not set here?"

OLDEST_UNAWAITED_S = 1.0
"""The greatest age at which a job that no request waits for is mailed as it was registered."""

log = structlog.get_logger()


class Attempt(NamedTuple):
    """What the mail server said to one mail: SENT, REFUSED, or PENDING, to be tried again after `wait_s`."""

    delivery: Delivery
    wait_s: float = 0.0
    fault: MailFault | None = None

    @property
    def error(self) -> str:
        return self.fault.code if self.fault else ""


class Crowded(Exception):
    """The mail server takes no more connections."""


class Worker:
    """Does jobs, one at a time for each sender; senders bring their own connections."""

    def __init__(
        self,
        outbox: Outbox,
        messages: Messages,
        queue: JobQueue,
        breaker: MailBreaker,
        leases: Leases,
        metrics: Metrics,
        happened: Callable[[str, str, Stage], None],
    ) -> None:
        """`happened`: told how far a registration has come, by service and user."""
        self._outbox = outbox
        self._messages = messages
        self._queue = queue
        self._breaker = breaker
        self._leases = leases
        self._metrics = metrics
        self._happened = happened

    def deliver(self, job: Job, session: SmtpSession, *, only: bool = False) -> None:
        """Does the job. Whatever happens, the address is remembered while it is owed a mail, and the request
        of an awaited job is answered.

        Raises Crowded, with the job unanswered, when the server takes no more connections. A server that does
        not even take the `only` connection of the process counts as down instead.
        """
        crowded = False
        try:
            for turn in range(1, SENDS_IN_A_ROW + 1):
                if not self._mail(job, session, only, turn):
                    break
        except Crowded:
            crowded = True
            raise
        except StorageUnavailable as error:
            wait_s = FIRST_WAIT_S
            if error.of_one_key:
                self._outbox.put_off(job.user_id)
                wait_s = self._leases.lease_s
            self._queue.remember(job.user_id, wait_s, job.cause)
        except Exception as error:  # noqa: BLE001 no error of one mail may end the sender
            self._queue.remember(job.user_id, self._leases.lease_s, job.cause)
            with suppress(Exception):  # not even that of a log
                self._log("error", "sender_failed", job, exception=error)
        except BaseException:
            self._queue.remember(job.user_id, self._leases.lease_s, job.cause)
            raise
        finally:
            self._leases.drop(job.owner)
            if not crowded:
                job.tell(Delivery.PENDING)

    def give_back(self, job: Job) -> bool:
        """Releases the lease of a job that was not begun: any process may send its mail now. False when Redis
        fails: then the mail is due when the lease has ended."""
        try:
            if job.registration is not None:
                self._outbox.release(job.user_id, job.registration.mail_id, job.owner)
        except StorageUnavailable:
            self._log("warning", "lease_left_to_end", job)
            return False
        return True

    def give_up(self, user_id: str) -> None:
        """Makes a mail that is too old fail, by claiming it. Raises StorageUnavailable."""
        job = Job(user_id, fresh_token())
        try:
            self._bring_up_to_date(job)
            self.give_back(job)  # it may have been asked for again
        finally:
            self._leases.drop(job.owner)

    def _mail(self, job: Job, session: SmtpSession, only: bool, turn: int) -> bool:
        """The mail of the job; from the second turn, the one that was asked for while the one before it was
        under way. Returns whether another follows under the same lease."""
        if turn == 1:
            self._begin(job)
        registration = job.registration
        if registration is None:
            return False
        attempt = self._attempt(job, registration, session, only)
        settled = self._settle(job, registration, attempt, go_on=turn < SENDS_IN_A_ROW)
        self._report(job, registration, attempt, settled)
        job.registration = settled.replacement
        if settled.replacement is None:
            return False
        job.cause = self._queue.cause_of(job.user_id)
        return True

    def _begin(self, job: Job) -> None:
        """Brings the job up to date; or gives it back while the mail server is away, which a test does not
        need."""
        is_test = job.registration is not None and job.registration.test
        if not self._breaker.open or is_test:
            self._bring_up_to_date(job)
            return
        job.tell(Delivery.PENDING)
        self._queue.remember(job.user_id, cause=job.cause)
        self.give_back(job)
        job.registration = None

    def _bring_up_to_date(self, job: Job) -> None:
        """Claims the job, unless it is current and its lease is fresh. A claimed job has a new lease and the
        live registration, or no registration when there is nothing to mail now."""
        now = time.monotonic()
        if job.registration is not None and _is_current(job, now) and self._leases.fresh(job.leased_at):
            self._leases.hold(job.owner, job.user_id, job.leased_at)
            return
        claim = self._outbox.claim(job.user_id, job.owner)
        if claim.mail_id:
            self._leases.hold(job.owner, job.user_id, now)
        if claim.later_ms is not None:
            self._queue.remember(job.user_id, claim.later_ms / 1000, job.cause)
        if job.registration is not None and claim.mail_id != job.registration.mail_id:
            job.tell(Delivery.PENDING)  # another mail is owed, or none: its request would wait in vain
            job.cause = self._queue.cause_of(job.user_id)
        job.registration, job.leased_at = claim.registration, now
        if claim.given_up is not None:
            self._report_too_old(job, claim.given_up)
        if claim.unreadable:  # another process may have its key
            self._log("error", "record_unreadable", job, reason=UNREADABLE)
            wait_ms = int(self._wait_s(claim.attempts) * 1000)
            self._outbox.settle(
                job.user_id,
                claim.mail_id,
                job.owner,
                Delivery.PENDING,
                wait_ms=wait_ms,
                error="record does not open",
            )

    def _attempt(self, job: Job, registration: Registration, session: SmtpSession, only: bool) -> Attempt:
        if registration.test:
            return self._judge(registration, sandbox.fault_of(registration.address))
        try:
            mail = self._messages.mail(registration)
        except ServiceUnknown:
            return self._judge(registration, SERVICE_UNKNOWN)
        started = time.perf_counter()
        try:
            session.send(mail, lambda: self._leases.ours(job.owner))
        except MailFault as fault:
            if fault.crowded and not only:
                raise Crowded from fault
            self._breaker.faulted(fault)
            return self._judge(registration, fault)
        finally:
            self._metrics.mailed(time.perf_counter() - started)
        self._breaker.accepted()
        return self._judge(registration, None)

    def _judge(self, registration: Registration, fault: MailFault | None) -> Attempt:
        if fault is None:
            return Attempt(Delivery.SENT)
        if fault.blame is Blame.ADDRESS:
            return Attempt(Delivery.REFUSED, fault=fault)
        wait_s = 0.0 if self._breaker.open else self._wait_s(registration.attempts)
        return Attempt(Delivery.PENDING, wait_s, fault)

    def _wait_s(self, attempts: int) -> float:
        return growing(FIRST_WAIT_S, LONGEST_WAIT_S, attempts, random.random)

    def _settle(self, job: Job, registration: Registration, attempt: Attempt, *, go_on: bool) -> Settled:
        """Writes down what the mail server said, and answers the request with what is written. If Redis
        fails, it tries on until the lease ends."""
        delivery = attempt.delivery
        if delivery is Delivery.REFUSED and not job.refuse():
            delivery = Delivery.FAILED  # the request was answered: its registration stays
        deadline = time.monotonic() + self._leases.lease_s
        while True:
            try:
                settled = self._outbox.settle(
                    job.user_id,
                    registration.mail_id,
                    job.owner,
                    delivery,
                    wait_ms=int(attempt.wait_s * 1000),
                    error=attempt.error,
                    go_on=go_on and delivery is not Delivery.PENDING,
                )
                break
            except StorageUnavailable as error:
                # While Redis does not know that a mail was accepted, the request only hears of a promise.
                job.tell(error if delivery is Delivery.REFUSED else Delivery.PENDING)
                if error.of_one_key or time.monotonic() > deadline or self._queue.closed:
                    raise
                time.sleep(SETTLE_AGAIN_S)
        job.tell(attempt.delivery if _is_written(delivery, settled) else Delivery.PENDING)
        if settled.left:  # another mail, which another request has asked for
            self._queue.remember(job.user_id, attempt.wait_s)
        elif settled.delivery is Delivery.PENDING:
            self._queue.remember(job.user_id, attempt.wait_s, job.cause)
        return settled

    def _report(self, job: Job, registration: Registration, attempt: Attempt, settled: Settled) -> None:
        """Tells services, metrics and log what happened, once it is written down. Mails of test registrations
        are neither counted nor logged."""
        if attempt.delivery is Delivery.SENT:
            self._happened(registration.service, job.user_id, Stage.SENT)
        elif settled.delivery is Delivery.FAILED:
            self._happened(registration.service, job.user_id, Stage.FAILED)
        if registration.test:
            return
        given_up = attempt.delivery is Delivery.PENDING and settled.delivery is Delivery.FAILED
        if given_up:
            self._metrics.delivery(Delivery.FAILED)
        elif attempt.fault is not SERVICE_UNKNOWN:  # of which nothing was attempted
            self._metrics.delivery(attempt.delivery)
        if attempt.fault is None:
            return
        match attempt.fault.blame:
            case Blame.OPERATOR:
                self._log("error", "mail_refused_by_server", job, fault=attempt.error)
            case Blame.ADDRESS:
                self._log("info", "mail_address_refused", job, fault=attempt.error)
            case _:
                self._log("warning", "mail_put_off", job, fault=attempt.error)
        if given_up:
            self._log("error", "mail_given_up", job, fault=attempt.error)

    def _report_too_old(self, job: Job, given_up: Contents) -> None:
        """The same for a mail that was given up when it was claimed."""
        self._happened(given_up.service, job.user_id, Stage.FAILED)
        if not given_up.test:
            self._metrics.delivery(Delivery.FAILED)
            self._log("error", "mail_given_up", job, fault="too old")

    def _log(self, level: str, event: str, job: Job, **more: object) -> None:
        """A line that names the request that caused the mail, if there is one."""
        cause = {name: value for name, value in job.cause._asdict().items() if value}
        getattr(log, level)(event, **cause, **more)


def _is_written(delivery: Delivery, settled: Settled) -> bool:
    """Whether Redis says the same of the mail, so that its request may be told."""
    if settled.lost:
        return False
    if delivery is Delivery.SENT:  # else the registration was replaced, or has ended
        return settled.delivery is not None
    if delivery is Delivery.REFUSED:  # else it is kept: a repetition (Idempotency-Key) was promised the mail
        return settled.delivery is None
    return True


def _is_current(job: Job, now: float) -> bool:
    """May be mailed as it was registered: a request waits for it, or it is at most OLDEST_UNAWAITED_S old."""
    return job.awaited or now - job.leased_at <= OLDEST_UNAWAITED_S


class TracedWorker(Worker):
    """The same, with each mail a part of its request's trace. Made only where there are traces."""

    def __init__(self, traces: Traces, *parts: Any) -> None:
        super().__init__(*parts)
        self._traces = traces

    def _mail(self, job: Job, session: SmtpSession, only: bool, turn: int) -> bool:
        with self._traces.work("mail", job.cause.traceparent):
            return super()._mail(job, session, only, turn)

    def _attempt(self, job: Job, registration: Registration, session: SmtpSession, only: bool) -> Attempt:
        attempt = super()._attempt(job, registration, session, only)
        self._traces.note("cedula.delivery", attempt.delivery)
        if attempt.fault is not None:
            self._traces.note("cedula.mail_error", attempt.error)
        return attempt
