"""Budgets: so many in a window of time."""

import re
from typing import NamedTuple, Self

_LIMIT = re.compile(
    r"(?P<amount>\d{1,9})\s*(?:/|\s+per\s+)\s*(?P<count>\d{0,6})\s*(?P<unit>second|minute|hour|day|month|year)s?",
    re.IGNORECASE,
)

_UNIT_S = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "month": 30 * 86_400,
    "year": 360 * 86_400,
}


class Budget(NamedTuple):
    """So many in a window of time; the window begins with the first. `amount` 0 = no limit."""

    amount: int = 0
    window_s: int = 0

    @property
    def window_ms(self) -> int:
        return self.window_s * 1000

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `10/hour` or `5/15 minutes`. Raises ValueError."""
        found = _LIMIT.fullmatch(text.strip())
        if found is None:
            raise ValueError("no limit")
        budget = cls(int(found["amount"]), int(found["count"] or 1) * _UNIT_S[found["unit"].lower()])
        if not all(budget):
            raise ValueError("no limit")
        return budget

    @classmethod
    def parse_many(cls, text: str) -> tuple[Self, ...]:
        """Reads limits that hold together, with `;`, `,` or `|` between them. Raises ValueError."""
        return tuple(cls.parse(each) for each in re.split("[;,|]", text))


NO_LIMIT = Budget()
