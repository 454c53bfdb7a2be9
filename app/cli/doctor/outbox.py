"""The outbox: how many mails are owed, for how long, and why."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from app.cli.doctor.findings import Area, Finding
from app.cli.doctor.server import connected
from app.config import Settings
from app.errors import StorageUnavailable
from app.repositories.census import Census, OutboxSize
from app.repositories.records import Sealer

OUTBOX = Area("outbox")

OLD_S: Final = 900
"""As the alert CedulaOutboxOld."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Reads at most 2,000 entries. Yields nothing where Redis does not answer; `store` reports that."""
    try:
        with connected(settings) as storage:
            owed = Census(storage, Sealer([])).owed()
            age_s = max(0, storage.now_ms() - owed.oldest_ms) // 1000 if owed.oldest_ms is not None else 0
    except StorageUnavailable:
        return
    yield _finding(owed, age_s)


def _finding(owed: OutboxSize, age_s: int) -> Finding:
    if not owed.depth:
        return OUTBOX.ok("No mail is owed.")
    mails = "1 mail is" if owed.depth == 1 else f"{owed.depth:,} mails are"
    reason = _reason(owed.reasons)
    says = f"{mails} owed, the oldest for {_span(age_s)}; {reason or 'none was tried yet'}."
    if not reason and age_s <= OLD_S:
        return OUTBOX.ok(says)
    make = OUTBOX.warning if age_s > OLD_S else OUTBOX.note
    return make(says, "`flask --app wsgi outbox list`; docs/runbook.md, CedulaOutboxOld, says what to do.")


def _reason(reasons: Counter[str]) -> str:
    """The most frequent one of the mails that were tried; empty where none was tried."""
    tried = Counter({reason: count for reason, count in reasons.items() if reason})
    if not tried:
        return ""
    ((reason, count),) = tried.most_common(1)
    return f"{reason}: {count} of {reasons.total():,} looked at"


def _span(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
