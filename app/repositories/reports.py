"""What is reported of mails, and which addresses are held back for it."""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from app.domain.registration import UserRecord
from app.domain.report import ReportKind
from app.repositories.keys import keys_of, name_of
from app.repositories.records import checked
from app.repositories.scripts import NoteReport
from app.storage.storage import Storage


class Noted(StrEnum):
    """What a report has changed."""

    NEW = "noted"
    AGAIN = "again"  # the record said so already


class HeldBack(NamedTuple):
    """An address to which nothing is mailed for now. Times in Unix ms by the clock of Redis."""

    user_id: str
    kind: str
    since_ms: int
    until_ms: int


class Reports:
    """The reports in Redis. Every method raises StorageUnavailable, having changed nothing or all."""

    def __init__(self, storage: Storage, suppress_ms: int) -> None:
        """`suppress_ms`: for how long a report holds an address back."""
        self._storage = storage
        self._suppress_ms = suppress_ms

    def note(self, record: UserRecord, kind: ReportKind, code: str, mail: int = 0) -> Noted | None:
        """Writes down what was reported: BOUNCED, COMPLAINED or SOFT. `mail`: of which mail, by how often it
        had been asked for again. None, with nothing changed: this registration is no longer live. Raises
        NewerRecord."""
        keys = keys_of(record.user_id)
        call = NoteReport(
            keys.user,
            keys.outbox,
            keys.suppressed,
            *keys.announcing,
            id=record.user_id,
            registration=record.registration_id,
            kind=kind.value,
            error_code=f"{kind} {code}".strip(),
            suppress_ms=self._suppress_ms,
            mail=mail,
        )
        outcome = checked(self._storage.run(call))
        return None if outcome == "gone" else Noted(outcome)

    def held_back(self) -> Iterator[HeldBack]:
        """Every address that is held back. Reads every key: seconds for a million."""
        users = map(name_of, self._storage.scan("{*}:suppressed:*"))
        for user_id, value in self._storage.ask_each(users, lambda user: ("GET", keys_of(user).suppressed)):
            parts = (value or b"").decode(errors="replace").split("|")
            if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
                yield HeldBack(user_id, parts[0], int(parts[1]), int(parts[2]))

    def lift(self, user_id: str) -> bool:
        """Holds the address back no longer; False when it was not."""
        return bool(self._storage.command("DEL", keys_of(user_id).suppressed))
