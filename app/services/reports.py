"""Reports of mails: all are counted, and those with a good tag of a live registration are believed."""

import time
from collections.abc import Callable

from app.domain.report import Outcome, Report, ReportKind
from app.domain.service import Service
from app.repositories.guard import Guard
from app.repositories.reports import Noted, Reports
from app.repositories.tags import Tags
from app.repositories.users import Users
from app.telemetry.metrics import Metrics, Stage

STAGES = {ReportKind.BOUNCED: Stage.BOUNCED, ReportKind.COMPLAINED: Stage.COMPLAINED}
"""How far a registration has come whose mail was reported so."""


class ReportService:
    """Writes down what became of mails after the mail server had accepted them."""

    def __init__(
        self,
        users: Users,
        reports: Reports,
        guard: Guard,
        tags: Tags,
        metrics: Metrics,
        happened: Callable[[str, str, Stage], None],
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """`happened`: as for VerificationService."""
        self._users = users
        self._reports = reports
        self._guard = guard
        self._tags = tags
        self._metrics = metrics
        self._now_s = now_s
        self._happened = happened

    def take(self, report: Report, service: Service | None = None) -> Outcome:
        """`service`: who reports, of its own mails only; None: the operator, of all.

        Raises StorageUnavailable: then the same report may be handed in again.
        """
        outcome = self._take(report, service)
        self._metrics.reported(report.kind, outcome)
        return outcome

    def _take(self, report: Report, service: Service | None) -> Outcome:
        if report.kind is ReportKind.NOTHING:
            return Outcome.IGNORED
        self._guard.check()  # with a wrong key, every tag is bad
        now_s = self._now_s()
        tag = next(filter(None, (self._tags.read(text, now_s) for text in report.candidates)), None)
        if tag is None:
            return Outcome.NO_TAG
        record = self._users.find(tag.user_id)
        if record is None:
            return Outcome.NOT_LIVE
        if service is not None and record.contents.service != service.id:
            return Outcome.FOREIGN
        if not record.registration_id.startswith(tag.registration):
            return Outcome.NOT_LIVE
        if report.kind is ReportKind.DELIVERED:
            return Outcome.NOTED
        noted = self._reports.note(record, report.kind, report.code, tag.resends)
        if noted is None:
            return Outcome.NOT_LIVE
        if noted is Noted.NEW and report.kind in STAGES:
            self._happened(record.contents.service, record.user_id, STAGES[report.kind])
        return Outcome.NOTED
