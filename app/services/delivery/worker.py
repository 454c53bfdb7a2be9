"""Carries mails: claims an address, sends, settles, until the mail accepted last has its live number."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from app.domain.registration import Delivery, Registration
from app.errors import StorageUnavailable
from app.mail.messages import Messages
from app.mail.smtp import Blame, MailFault, SmtpSession
from app.repositories.outbox import Outbox, Outcome, Settled
from app.services.delivery.breaker import MailBreaker
from app.services.delivery.leases import Leases
from app.services.delivery.queue import Answer, Job, JobQueue
from app.telemetry.metrics import MailOutcome, Metrics

FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 900.0
"""Retries wait at most 2 s, then double up to 15 minutes; jitter keeps them from coming in step."""

SENDS_IN_A_ROW = 4
"""How often one sender follows an address that registers again and again, before the relay goes on."""

SETTLE_AGAIN_S = 0.25

TRUSTED_S = 1.0
"""So long a job that nobody waits for is mailed as it was registered. After more time in the queue Redis is
asked again: the registration may have been replaced or erased."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one attempt to mail came to, before it is settled. `wait_s` only where it is tried again."""

    outcome: Outcome
    answer: Answer
    wait_s: float = 0.0
    error: str = ""


class TurnedAway(Exception):
    """The mail server takes no more connections, and other senders of this process have some."""


class Courier:
    """Does one job after another; shared by all senders, which bring their own connections.

    `alone`: whether no other sender's session is connected.
    """

    def __init__(
        self,
        outbox: Outbox,
        messages: Messages,
        queue: JobQueue,
        breaker: MailBreaker,
        *,
        alone: Callable[[SmtpSession], bool] = lambda _: True,
        jitter: Callable[[], float] = random.random,
        metrics: Metrics | None = None,
    ) -> None:
        self._outbox = outbox
        self._messages = messages
        self._queue = queue
        self._breaker = breaker
        self._alone = alone
        self._jitter = jitter
        self._metrics = metrics or Metrics()
        self.leases = Leases(outbox)

    def carry(self, job: Job, session: SmtpSession) -> bool:
        """Does the job; whatever happens, the address stays known and the request gets an answer.

        False when the mail server takes no more connections from this process: then the job is put back for
        the senders that have one.
        """
        try:
            self._carry(job, session)
        except TurnedAway:
            self.leases.drop(job.owner)
            if self._queue.put(job, back=True):
                return False
            self.give_back(job)
        except StorageUnavailable:
            self._queue.remember(job.user_id, FIRST_WAIT_S)
        except Exception as error:  # noqa: BLE001 a sender must outlive whatever one mail does to it
            log.error("sender_failed", exception=error)
            self._queue.remember(job.user_id, self.leases.lease_s)
        self.leases.drop(job.owner)
        job.tell(Answer.PENDING)
        return True

    def give_back(self, job: Job) -> bool:
        """Lets the lease of a job that was not begun go: its mail is due for everybody. False when Redis
        fails: then it is when the lease has ended."""
        registration = job.registration
        if registration is None:
            return True
        try:
            self._outbox.settle(job.user_id, registration.registration_id, job.owner, Outcome.RELEASE)
        except StorageUnavailable:
            log.warning("lease_left_to_end")
            return False
        return True

    def _carry(self, job: Job, session: SmtpSession) -> None:
        if self._breaker.open:
            job.tell(Answer.PENDING)
            self.give_back(job)
            self._queue.remember(job.user_id)
            return
        registration = self._leased(job)
        for turn in range(1, SENDS_IN_A_ROW + 1):
            if registration is None:
                return
            attempt = self._attempt(job, registration, session)
            settled = self._settle(job, registration, attempt, go_on=turn < SENDS_IN_A_ROW)
            registration = settled.replacement

    def _leased(self, job: Job) -> Registration | None:
        """The registration to mail, under a lease that is fresh; None when there is nothing to do now."""
        trusted = job.asked or time.monotonic() - job.leased_at < TRUSTED_S
        if job.registration is not None and trusted and self.leases.fresh(job.leased_at):
            self.leases.hold(job.owner, job.user_id, job.leased_at)
            return job.registration
        now = time.monotonic()
        claim = self._outbox.claim(job.user_id, job.owner)
        if claim.registration_id:
            self.leases.hold(job.owner, job.user_id, now)
        if claim.unreadable:
            self._settle_unreadable(job, claim.registration_id, claim.attempts)
        if claim.later_ms is not None:
            self._queue.remember(job.user_id, claim.later_ms / 1000)
        if job.registration is not None and claim.registration_id != job.registration.registration_id:
            job.tell(Answer.PENDING)  # another registration took its place; nobody asks for that one here
        return claim.registration

    def _settle_unreadable(self, job: Job, registration_id: str, attempts: int) -> None:
        """A record that was sealed with a key we lack: a process that has the key may be luckier."""
        log.error("record_does_not_open", hint="was the data sealed with a key that is not set here?")
        self._outbox.settle(
            job.user_id,
            registration_id,
            job.owner,
            Outcome.RETRY,
            wait_ms=int(self._wait_s(attempts) * 1000),
            error="record does not open",
        )

    def _attempt(self, job: Job, registration: Registration, session: SmtpSession) -> Attempt:
        started = time.perf_counter()
        try:
            session.send(self._messages.mail(registration), lambda: self.leases.ours(job.owner))
        except MailFault as fault:
            if fault.crowded and not self._alone(session):
                raise TurnedAway from fault
            self._breaker.faulted(fault)
            if fault.blame is Blame.ADDRESS:
                outcome = Outcome.ERASE if job.refuse() else Outcome.FAIL
                return Attempt(outcome, Answer.REFUSED, error=fault.code)
            wait_s = 0.0 if self._breaker.open else self._wait_s(registration.attempts)
            return Attempt(Outcome.RETRY, Answer.PENDING, wait_s, fault.code)
        finally:
            self._metrics.mailed(time.perf_counter() - started)
        self._breaker.accepted()
        return Attempt(Outcome.SENT, Answer.SENT)

    def _wait_s(self, attempts: int) -> float:
        longest = min(FIRST_WAIT_S * 2.0 ** min(attempts, 20), LONGEST_WAIT_S)
        return longest * (0.5 + self._jitter() / 2)

    def _settle(self, job: Job, registration: Registration, attempt: Attempt, *, go_on: bool) -> Settled:
        """Writes the outcome down, until the lease ends if need be, and answers the request."""
        deadline = time.monotonic() + self.leases.lease_s
        while True:
            try:
                settled = self._outbox.settle(
                    registration.user_id,
                    registration.registration_id,
                    job.owner,
                    attempt.outcome,
                    wait_ms=int(attempt.wait_s * 1000),
                    error=attempt.error,
                    go_on=go_on and attempt.outcome is not Outcome.RETRY,
                )
                break
            except StorageUnavailable:
                # A mail that was accepted is only promised while Redis does not know of it.
                job.tell(Answer.UNKNOWN if attempt.outcome is Outcome.ERASE else Answer.PENDING)
                if time.monotonic() > deadline or self._queue.closed:
                    raise
                time.sleep(SETTLE_AGAIN_S)
        # Not erased: a repetition of the request (Idempotency-Key) was promised the mail.
        kept = attempt.outcome is Outcome.ERASE and settled.delivery is not None
        job.tell(Answer.PENDING if settled.lost or kept else attempt.answer)
        self._metrics.delivery(_told(attempt, settled))
        if settled.delivery is Delivery.FAILED:
            log.error("mail_given_up", fault=attempt.error)
        if settled.left or settled.delivery is Delivery.PENDING:
            self._queue.remember(registration.user_id, attempt.wait_s)
        return settled


def _told(attempt: Attempt, settled: Settled) -> MailOutcome:
    """What the operator is told of an attempt: above all, what the mail server said."""
    if attempt.outcome is Outcome.SENT:
        return MailOutcome.SENT
    if attempt.answer is Answer.REFUSED:
        return MailOutcome.REFUSED
    return MailOutcome.GIVEN_UP if settled.delivery is Delivery.FAILED else MailOutcome.PUT_OFF
