"""What one process does with its users and its outbox, called directly on a real Redis."""

from dataclasses import dataclass, field

import redis

from app.domain.address import Address
from app.domain.budget import Budget
from app.domain.number import NumberGenerator
from app.domain.registration import Draft, Registered, Stored
from app.repositories.census import Census
from app.repositories.keys import Names
from app.repositories.outbox import Outbox
from app.repositories.sealing import Sealer
from app.repositories.users import Terms, Users
from app.storage.storage import Storage
from tests.support.values import text

HOUR_MS = 3_600_000
LEASE_MS = 25_000
KEY = "order-4711"


def ada() -> Address:
    return Address.parse("ada@example.com")


def age_mark(store: redis.Redis, seconds: int) -> None:
    """Makes the one idempotency mark older, as if so much time had passed."""
    (mark,) = store.scan_iter("*:idempotency:*")
    fingerprint, registration, created_ms, answer = text(store.get(mark)).split("|")
    older = "|".join([fingerprint, registration, str(int(created_ms) - seconds * 1000), answer])
    store.set(mark, older, keepttl=True)


@dataclass
class Process:
    """A process of the service, without HTTP and mail. `limit`: registrations, and wrong numbers, an hour."""

    url: str
    secrets: tuple[str, ...] = ()
    index: str | None = None
    limit: int = 5
    users: Users = field(init=False)
    outbox: Outbox = field(init=False)
    census: Census = field(init=False)

    def __post_init__(self) -> None:
        self.client = Storage(self.url, 5.0)
        names, sealer = Names(self.index), Sealer(self.secrets)
        self.users = Users(self.client, names, sealer)
        self.outbox = Outbox(self.client, sealer, LEASE_MS)
        self.census = Census(self.client, sealer)

    @property
    def budget(self) -> Budget:
        return Budget(self.limit, 3600 if self.limit else 0)

    def close(self) -> None:
        self.client.close()

    def outcome(
        self, address: Address, *, token: str = "t0ken", key: str = "", lease_ms: int = LEASE_MS
    ) -> Stored | Registered:
        """One call of register.lua. `key`: an Idempotency-Key."""
        keys, draft = self.users.keys(address), Draft(address, token, "en")
        found = self.users.register(
            keys,
            draft,
            NumberGenerator(12).draw_distinct(keys.shard, 4),
            Terms(HOUR_MS, self.budget, HOUR_MS),
            lease_ms=lease_ms,
            once=self.users.once("", draft, key) if key else None,
        )
        assert found is not None
        return found

    def registered(self, address: Address, *, key: str = "", lease_ms: int = LEASE_MS) -> Stored:
        found = self.outcome(address, key=key, lease_ms=lease_ms)
        assert isinstance(found, Stored)
        return found
