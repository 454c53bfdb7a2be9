"""What an examination finds."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is. A note: neither good nor bad, or could not be examined."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined: `says` what is, `cure` says what to do. Neither holds a secret."""

    area: str
    level: Level
    says: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Area:
    """Makes the findings of one area."""

    name: str

    def ok(self, says: str) -> Finding:
        return Finding(self.name, Level.OK, says)

    def note(self, says: str, cure: str = "") -> Finding:
        return Finding(self.name, Level.NOTE, says, cure)

    def warning(self, says: str, cure: str) -> Finding:
        return Finding(self.name, Level.WARNING, says, cure)

    def problem(self, says: str, cure: str) -> Finding:
        return Finding(self.name, Level.PROBLEM, says, cure)
