"""Services: who registers people here, in whose name mails go, and within which limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from app.domain.budget import NO_LIMIT, Budget
from app.domain.event import Endpoint

DEFAULT = "default"
"""The id of the service that the environment describes. No table of SERVICES_FILE may have it."""

SERVICE_ID = "[a-z][a-z0-9-]{0,31}"
"""A regular expression for the ids of services."""


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
