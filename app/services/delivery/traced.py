"""The worker, each of whose mails is a part of its request's trace. Made only where there are traces."""

from typing import Any

from app.domain.registration import Registration
from app.mail.smtp import SmtpSession
from app.services.delivery.queue import Job
from app.services.delivery.worker import Attempt, Worker
from app.telemetry.traces import Traces


class TracedWorker(Worker):
    """Worker with a span around each job, which tells what came of it."""

    def __init__(self, traces: Traces, *parts: Any, **more: Any) -> None:
        super().__init__(*parts, **more)
        self._traces = traces

    def _deliver(self, job: Job, session: SmtpSession, only: bool) -> None:
        with self._traces.work("mail", job.cause.traceparent):
            super()._deliver(job, session, only)

    def _attempt(self, job: Job, registration: Registration, session: SmtpSession, only: bool) -> Attempt:
        attempt = super()._attempt(job, registration, session, only)
        self._traces.note("cedula.delivery", attempt.delivery)
        if attempt.fault is not None:
            self._traces.note("cedula.mail_error", attempt.error)
        return attempt
