"""The circuit breaker of the mail server: while the server is known to be down, no request waits for it."""

import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from app.mail.smtp import Blame, MailFault
from app.telemetry.metrics import Metrics

FAILURES_TO_OPEN = 3
"""In a row. One broken connection is a hiccup; three are a server that is down."""

FIRST_TRIAL_S = 0.5
LONGEST_TRIAL_S = 30.0
"""Waits between trials double from the first to the longest. Only an accepted mail resets them: a server that
lets us in and then breaks off is not back."""

log = structlog.get_logger()


class MailBreaker:
    """Counts failures in a row; open from the third one until the server answers again."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._failures = 0
        self._trial_s = FIRST_TRIAL_S
        self._trial_at = 0.0
        self._server_fault = self._operator_fault = ""
        self.heard_at = 0.0
        """When `state` was heard, by the clock."""
        self.open = False
        self._metrics.breaker(is_open=False)

    @property
    def state(self) -> str:
        """For readiness: `ok`, or what is wrong, without anything personal."""
        return self._server_fault or self._operator_fault or "ok"

    def trial_due(self) -> bool:
        """True once each time that the server should be tried again."""
        if not self.open or self._clock() < self._trial_at:
            return False
        self._put_off_trial()
        return True

    def accepted(self) -> None:
        """A mail was accepted: all is well."""
        self._trial_s = FIRST_TRIAL_S
        self._operator_fault = ""
        self.reached()

    def reached(self) -> None:
        """The server talks to us, whatever it says: the breaker closes."""
        self._failures = 0
        self._server_fault = ""
        if not self._operator_fault:  # of which a connection tells nothing new
            self.heard_at = self._clock()
        if self.open:
            self._turn(is_open=False)
            with suppress(Exception):  # an error of the log must not stop the sender
                log.info("mail_server_back")

    def faulted(self, fault: MailFault) -> None:
        """A mail was not accepted, or no connection could be made."""
        self._metrics.mail_fault(fault.blame)
        self.heard_at = self._clock()
        if fault.blame is Blame.OPERATOR:
            self._operator_fault = fault.code if fault.connected else ""
        if fault.connected and fault.blame is not Blame.SERVER:
            self.reached()
            return
        self._server_fault = fault.code
        self._failures += 1
        if self._failures >= FAILURES_TO_OPEN and not self.open:
            self._put_off_trial()
            self._turn(is_open=True)
            with suppress(Exception):
                log.warning("mail_server_down", fault=fault.code)

    def _turn(self, *, is_open: bool) -> None:
        self.open = is_open
        self._metrics.breaker(is_open=is_open)

    def _put_off_trial(self) -> None:
        self._trial_at = self._clock() + self._trial_s
        self._trial_s = min(2 * self._trial_s, LONGEST_TRIAL_S)
