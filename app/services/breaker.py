"""The circuit breaker of the mail server: while it is known to be down, nobody waits for it."""

import time
from collections.abc import Callable

import pybreaker
import structlog

from app.mail.smtp import MailFault

FAILURES_TO_OPEN = 3
"""In a row. One broken connection is a hiccup; three are a server that is down."""

FIRST_TRIAL_S = 0.5
LONGEST_TRIAL_S = 30.0
"""Waits between trials double from the first to the longest."""

log = structlog.get_logger()


class MailBreaker:
    """Counts what every conversation with the mail server came to; opens and closes by itself.

    The state machine is pybreaker's. It is told of results afterwards, because its own `call` would hold
    its lock for as long as a mail takes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._trial_s = FIRST_TRIAL_S
        self._trial_at = 0.0
        self._breaker = pybreaker.CircuitBreaker(fail_max=FAILURES_TO_OPEN, reset_timeout=0)
        self.last_fault = ""

    @property
    def open(self) -> bool:
        return self._breaker.current_state != pybreaker.STATE_CLOSED

    def trial_due(self) -> bool:
        """True for one caller when it is time to find out whether the server is back."""
        if not self.open or self._clock() < self._trial_at:
            return False
        self._put_off()
        return True

    def succeeded(self) -> None:
        """A conversation went as it should: one success closes."""
        self.last_fault = ""
        if not self.open and not self._breaker.fail_counter:
            return
        was_open = self.open
        self._breaker.call(lambda: None)
        self._trial_s = FIRST_TRIAL_S
        if was_open:
            log.info("mail_server_back")

    def failed(self, fault: MailFault) -> None:
        """The server could not be reached, broke off, or would not let us in."""
        was_open = self.open
        self.last_fault = fault.code
        try:
            self._breaker.call(_raise, fault)
        except (MailFault, pybreaker.CircuitBreakerError):
            pass
        if self.open and not was_open:
            self._trial_s = FIRST_TRIAL_S
            self._put_off()
            log.warning("mail_server_down", fault=fault.code, blame=fault.blame)

    def _put_off(self) -> None:
        self._trial_at = self._clock() + self._trial_s
        self._trial_s = min(2 * self._trial_s, LONGEST_TRIAL_S)


def _raise(fault: MailFault) -> None:
    raise fault
