"""The circuit breaker of the mail server: while it is known to be down, nobody waits for it."""

import time
from collections.abc import Callable
from contextlib import suppress

import pybreaker
import structlog

from app.mail.smtp import Blame, MailFault
from app.telemetry.metrics import Metrics

FAILURES_TO_OPEN = 3
"""In a row. One broken connection is a hiccup; three are a server that is down."""

FIRST_TRIAL_S = 0.5
LONGEST_TRIAL_S = 30.0
"""Waits between trials double from the first to the longest, until a mail is accepted again: a server
that lets us in and then breaks off is not back."""

log = structlog.get_logger()


class MailBreaker:
    """Hears what every conversation with the mail server came to; opens and closes by itself.

    The state machine is pybreaker's. It is told of results afterwards, because its own `call` would hold
    its lock for as long as a mail takes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, metrics: Metrics | None = None) -> None:
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._metrics.breaker(is_open=False)
        self._trial_s = FIRST_TRIAL_S
        self._trial_at = 0.0
        self._breaker = pybreaker.CircuitBreaker(fail_max=FAILURES_TO_OPEN, reset_timeout=0)
        self._server_fault = self._operator_fault = ""

    @property
    def open(self) -> bool:
        return self._breaker.current_state != pybreaker.STATE_CLOSED

    @property
    def state(self) -> str:
        """For people who look at readiness: `ok`, or what is wrong, without anything personal."""
        return self._server_fault or self._operator_fault or "ok"

    def trial_due(self) -> bool:
        """True for one caller when it is time to find out whether the server is back."""
        if not self.open or self._clock() < self._trial_at:
            return False
        self._put_off()
        return True

    def accepted(self) -> None:
        """A mail was accepted: all is well."""
        self._trial_s = FIRST_TRIAL_S
        self._operator_fault = ""
        self.reached()

    def reached(self) -> None:
        """The server talks to us: one such conversation closes."""
        was_open = self.open
        if was_open or self._breaker.fail_counter:
            self._breaker.close()
        self._server_fault = ""
        if was_open:
            self._metrics.breaker(is_open=False)
            log.info("mail_server_back")

    def faulted(self, fault: MailFault) -> None:
        """A mail was not accepted, or no connection could be made. Operators' faults are said loudly."""
        self._metrics.mail_fault(fault.blame)
        if fault.blame is Blame.OPERATOR:
            self._operator_fault = fault.code if fault.connected else ""
            log.error("mail_refused_by_server", fault=fault.code)
        elif fault.blame is not Blame.ADDRESS:
            log.warning("mail_put_off", fault=fault.code)
        if fault.blame is Blame.SERVER or not fault.connected:
            self._failed(fault)
        else:
            self.reached()

    def _failed(self, fault: MailFault) -> None:
        self._server_fault = fault.code
        if self.open:
            return
        with suppress(MailFault, pybreaker.CircuitBreakerError):
            self._breaker.call(_raise, fault)
        if self.open:
            self._put_off()
            self._metrics.breaker(is_open=True)
            log.warning("mail_server_down", fault=fault.code)

    def _put_off(self) -> None:
        self._trial_at = self._clock() + self._trial_s
        self._trial_s = min(2 * self._trial_s, LONGEST_TRIAL_S)


def _raise(fault: MailFault) -> None:
    raise fault
