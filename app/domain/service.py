"""Services: who registers people here, in whose name mails go, within which limits, and where events go."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

DEFAULT = "default"
"""The id of the service that the environment describes. No table of SERVICES_FILE may have it."""

SERVICE_ID = "[a-z][a-z0-9-]{0,31}"
"""A regular expression for the ids of services."""

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
        if not found or not (amount := int(found["amount"])) or not (count := int(found["count"] or 1)):
            raise ValueError("no limit")
        return cls(amount, count * _UNIT_S[found["unit"].lower()])


NO_LIMIT = Budget()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the events of a service go. `secrets`: `whsec_…` of Standard Webhooks, one or, while they rotate,
    two; each signs. `private`: its name may lead to a private address."""

    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    private: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """A service that registers people. Equal to itself only: after a reload there are others, and what was
    made of the old ones (their mails) is not taken for theirs.

    `id`: its table in SERVICES_FILE, or `default`. `name`: who the mail says is asking. `sender`: an
    address, or `Name <address>`. `support`, `color`, `logo`: an address for questions, `#rrggbb` and an
    `https://` URL; empty = none. `locale`: the language of a mail where the request names none that there
    is. `templates`: the files that replace or complete the built-in ones, by file name. `ttl_s`: how long
    its numbers live, 0 = until used. `mailbox_limit`: for mails that go out. `test`: of what it registers,
    nothing is ever mailed. `events`: where it is told what becomes of its registrations; None = nowhere.
    """

    id: str = DEFAULT
    name: str = "Cedula"
    sender: str = "no-reply@localhost"
    support: str = ""
    color: str = ""
    logo: str = ""
    locale: str = "en"
    subject_number: bool = False
    templates: Mapping[str, str] = field(default_factory=dict)
    ttl_s: int = 0
    address_limit: Budget = NO_LIMIT
    mailbox_limit: Budget = NO_LIMIT
    verify_limit: Budget = NO_LIMIT
    client_limit: tuple[Budget, ...] = ()
    test: bool = False
    events: Endpoint | None = None

    @property
    def ttl_ms(self) -> int:
        return self.ttl_s * 1000


class Caller(NamedTuple):
    """Who called: a service, and the name of its key for the log (empty where no key is needed)."""

    service: Service
    key_name: str = ""
