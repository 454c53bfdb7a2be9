"""The messaging service: mails numbers, beside the requests that wait for them.

A bounded number of senders, each with its own kept connection to the mail server, work on a queue of jobs.
What cannot be mailed now stays in the outbox, from which the relay brings it back.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from app.errors import StorageUnavailable
from app.mail.messages import Messages
from app.mail.smtp import MAX_IDLE_S, Blame, MailFault, SmtpSession
from app.registrations import Registration
from app.repositories.outbox import Outbox, Outcome, Settled
from app.repositories.sealing import SealBroken
from app.repositories.users import Stored, fresh_token
from app.services.breaker import LONGEST_TRIAL_S, MailBreaker
from app.services.jobs import Answer, Job, JobQueue

FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 900.0
"""Retries wait at most 2 s, then double up to 15 minutes; jitter keeps them from coming in step."""

SENDS_IN_A_ROW = 4
"""How often one sender follows an address that registers again and again, before the relay goes on."""

SETTLE_AGAIN_S = 0.25
QUEUE_PER_CONNECTION = 32
"""Jobs that may wait for a connection. Beyond them a registration only stands in the outbox."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SendPlan:
    """How a registration is to be mailed. `lease_ms`: the lease to take with it, 0 = it is not begun now;
    then, as where another sender is at work, it is due for everybody after `wait_ms`."""

    lease_ms: int
    wait_ms: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one attempt to mail came to, before it is settled."""

    outcome: Outcome
    answer: Answer
    wait_s: float = 0.0
    error: str = ""


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
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._outbox = outbox
        self._messages = messages
        self._open_session = open_session
        self._connections = connections
        self._timeout_s = timeout_s
        self._lease_s = outbox.lease_ms / 1000
        self._jitter = jitter
        self.breaker = MailBreaker()
        self._queue = JobQueue()
        self._senders: list[threading.Thread] = []
        self._starting = threading.Lock()
        self._held: dict[str, tuple[str, float]] = {}
        self.operator_fault = ""

    # For requests

    def plan(self) -> SendPlan:
        """Whether a mail can be begun now: not while the mail server is down or too many wait for it."""
        if self.breaker.open:
            return SendPlan(lease_ms=0, wait_ms=int(LONGEST_TRIAL_S * 1000))
        if self._queue.closed or len(self._queue) > self._connections * QUEUE_PER_CONNECTION:
            return SendPlan(lease_ms=0, wait_ms=self._outbox.lease_ms)
        return SendPlan(lease_ms=self._outbox.lease_ms, wait_ms=self._outbox.lease_ms)

    def send(self, stored: Stored, plan: SendPlan, *, wait: bool) -> Answer:
        """Begins to mail a registration, and waits for the mail server up to the mail time-out.

        PENDING when it is still under way then, cannot be mailed now, or another mail to the address is.
        """
        registration = stored.registration
        if stored.owner is None:
            self._queue.remember(registration.user_id, self._lease_s if plan.lease_ms else 0.0)
            return Answer.PENDING
        job = Job(registration.user_id, stored.owner, registration, time.monotonic() + self._lease_s)
        if not wait:
            job.abandon()
        self._queue.put(job)
        self._start_sender()
        return job.wait(self._timeout_s) if wait else Answer.PENDING

    @property
    def state(self) -> str:
        """For people who look at readiness: `ok`, or what is wrong, without anything personal."""
        return self.operator_fault or self.breaker.last_fault or "ok"

    # For the relay

    def remember(self, user_id: str, wait_s: float) -> None:
        """An address whose mail will be due; this process will see to it."""
        self._queue.remember(user_id, wait_s)

    def wake(self) -> None:
        """Lets senders take what has become due; finds out whether a mail server that was down is back."""
        if self.breaker.trial_due():
            threading.Thread(target=self._try_server, daemon=True, name="mail-trial").start()
        if not self.breaker.open:
            for _ in range(self._queue.wake()):
                self._start_sender()

    def renew_leases(self) -> None:
        """Renews every lease that has used up a third of its time. Raises StorageUnavailable."""
        now = time.monotonic()
        for owner, (user_id, renewed) in list(self._held.items()):
            if now - renewed > self._lease_s / 3 and owner in self._held:
                self._outbox.renew(user_id, owner)
                if owner in self._held:
                    self._held[owner] = (user_id, now)

    def close(self, timeout_s: float) -> None:
        """Finishes the mails in hand and gives the rest back to the outbox."""
        for job in self._queue.close():
            job.tell(Answer.PENDING)
            self._give_back(job, 0.0)
        deadline = time.monotonic() + timeout_s
        for sender in self._senders:
            sender.join(max(0.0, deadline - time.monotonic()))

    # The senders

    def _start_sender(self) -> None:
        """One sender more, if none rests and the bound allows it."""
        if self._queue.waiting or len(self._senders) >= self._connections:
            return
        with self._starting:
            if len(self._senders) < self._connections and not self._queue.closed:
                sender = threading.Thread(target=self._work, daemon=True, name="mail-sender")
                self._senders.append(sender)
                sender.start()

    def _work(self) -> None:
        session = self._open_session()
        while not self._queue.closed:
            found = self._queue.take(MAX_IDLE_S, only_requests=self.breaker.open)
            if found is None:
                session.close_if_idle()
                continue
            job = found if isinstance(found, Job) else Job(found, fresh_token())
            try:
                self._deliver(job, session)
            except Exception as error:  # a sender must outlive whatever one mail does to it
                log.error("sender_failed", error=type(error).__name__)
                self._queue.remember(job.user_id, self._lease_s)
            finally:
                self._held.pop(job.owner, None)
                job.tell(Answer.PENDING)
        session.close()

    def _deliver(self, job: Job, session: SmtpSession) -> None:
        """Mails the address until the mail that was accepted last carries its live number."""
        if self.breaker.open:
            self._give_back(job, LONGEST_TRIAL_S)
            self._queue.remember(job.user_id, 0.0)
            return
        registration = self._leased(job)
        for turn in range(1, SENDS_IN_A_ROW + 1):
            if registration is None:
                return
            attempt = self._attempt(job, registration, session)
            registration = self._settle(job, registration, attempt, go_on=turn < SENDS_IN_A_ROW)

    def _leased(self, job: Job) -> Registration | None:
        """The registration to mail, under a lease that is fresh; None when there is nothing to do."""
        now = time.monotonic()
        if job.registration is not None and now < job.lease_until - self._lease_s * 2 / 3:
            self._held[job.owner] = (job.user_id, job.lease_until - self._lease_s)
            return job.registration
        try:
            claim = self._outbox.claim(job.user_id, job.owner)
        except StorageUnavailable:
            self._queue.remember(job.user_id, FIRST_WAIT_S)
            return None
        except SealBroken:
            log.error("record_does_not_open", hint="was the data sealed with a key that is not set here?")
            return None
        if claim.busy_ms:
            self._queue.remember(job.user_id, claim.busy_ms / 1000)
        if claim.registration is not None:
            self._held[job.owner] = (job.user_id, now)
        return claim.registration

    def _attempt(self, job: Job, registration: Registration, session: SmtpSession) -> Attempt:
        try:
            session.send(self._messages.mail(registration))
        except MailFault as fault:
            self._note(fault)
            if fault.blame is Blame.ADDRESS:
                outcome = Outcome.ERASE if job.refuse() else Outcome.FAIL
                return Attempt(outcome, Answer.REFUSED, error=fault.code)
            return Attempt(Outcome.RETRY, Answer.PENDING, self._wait_s(registration), fault.code)
        self.breaker.succeeded()
        self.operator_fault = ""
        return Attempt(Outcome.SENT, Answer.SENT)

    def _note(self, fault: MailFault) -> None:
        """Who has to know of a fault: the breaker, the operator."""
        if fault.blame is Blame.SERVER or not fault.connected:
            self.breaker.failed(fault)
        else:
            self.breaker.succeeded()
        if fault.blame is Blame.OPERATOR:
            self.operator_fault = fault.code
            log.error("mail_refused_by_server", fault=fault.code)
        elif fault.blame is not Blame.ADDRESS:
            log.warning("mail_put_off", fault=fault.code)

    def _wait_s(self, registration: Registration) -> float:
        if self.breaker.open:
            return LONGEST_TRIAL_S
        longest = min(FIRST_WAIT_S * 2.0 ** min(registration.attempts, 20), LONGEST_WAIT_S)
        return longest * (0.5 + self._jitter() / 2)

    def _settle(
        self, job: Job, registration: Registration, attempt: Attempt, *, go_on: bool
    ) -> Registration | None:
        """Writes the outcome down, until the lease ends if need be; returns what to mail next."""
        outcome = attempt.outcome
        deadline = time.monotonic() + self._lease_s
        while True:
            try:
                settled = self._outbox.settle(
                    registration,
                    job.owner,
                    outcome,
                    wait_ms=int(attempt.wait_s * 1000),
                    error=attempt.error,
                    go_on=go_on and outcome is not Outcome.RETRY,
                )
                break
            except StorageUnavailable:
                job.tell(Answer.PENDING)  # it is in the outbox; what is known now may not be said for sure
                if outcome is Outcome.ERASE:
                    outcome = Outcome.FAIL
                if time.monotonic() > deadline or self._queue.closed:
                    self._queue.remember(job.user_id, FIRST_WAIT_S)
                    return None
                time.sleep(SETTLE_AGAIN_S)
        job.tell(Answer.PENDING if settled.lost else attempt.answer)
        self._remember_what_is_left(registration, attempt, settled)
        return settled.replacement

    def _remember_what_is_left(self, registration: Registration, attempt: Attempt, settled: Settled) -> None:
        if attempt.outcome is Outcome.RETRY and not settled.lost:
            self._queue.remember(registration.user_id, 0.0 if self.breaker.open else attempt.wait_s)
        elif settled.left:
            self._queue.remember(registration.user_id, 0.0)

    def _give_back(self, job: Job, wait_s: float) -> None:
        """Lets the lease of a job that was not begun go; its entry is due for everybody after the wait."""
        if job.registration is None:
            return
        try:
            self._outbox.settle(job.registration, job.owner, Outcome.RELEASE, wait_ms=int(wait_s * 1000))
        except StorageUnavailable:
            log.warning("lease_left_to_end")

    def _try_server(self) -> None:
        session = self._open_session()
        try:
            session.probe()
        except MailFault as fault:
            self._note(fault)
        else:
            self.operator_fault = ""
            self.breaker.succeeded()
        finally:
            session.close()
        self.wake()
