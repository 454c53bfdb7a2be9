"""What one process does with its users and its outbox, called directly on a real Redis."""

from dataclasses import dataclass, field

from app.domain.address import Address
from app.domain.number import NumberGenerator
from app.domain.registration import Delivery, Draft, Registered, Registration, Stored
from app.domain.service import DEFAULT, Budget, Endpoint, Service
from app.repositories.census import Census
from app.repositories.events import Events
from app.repositories.keys import Names, UserKeys
from app.repositories.outbox import Outbox
from app.repositories.records import Sealer
from app.repositories.reports import Reports
from app.repositories.users import Users
from app.storage.storage import Storage
from tests.support.scan import Client
from tests.support.values import text

DIGITS = 10
HOUR_MS = 3_600_000
LEASE_MS = 25_000
KEY = "order-4711"
ENDPOINT = Endpoint("https://acme.example/hooks", ("whsec_c2VjcmV0",))


def ada() -> Address:
    return Address.parse("ada@example.com")


def age_mark(store: Client, seconds: int) -> None:
    """Makes the one idempotency mark older, as if so much time had passed."""
    (mark,) = store.scan_iter("*:idempotency:*")
    fingerprint, registration, created_ms, expires_ms, answer = text(store.get(mark)).split("|")
    older_ms = str(int(created_ms) - seconds * 1000)
    older = "|".join([fingerprint, registration, older_ms, expires_ms, answer])
    store.set(mark, older, keepttl=True)


@dataclass
class Process:
    """A process of the service, without HTTP and mail. `limit`: registrations, and wrong numbers, an hour.
    `name`: of the service that asks, which may be a `test` service. `listens`: it wants events. `ttl_s`: how
    long its numbers live."""

    url: str
    secrets: tuple[str, ...] = ()
    index: str | None = None
    limit: int = 5
    mailbox_limit: int = 0
    name: str = DEFAULT
    test: bool = False
    listens: bool = False
    ttl_s: int = HOUR_MS // 1000
    users: Users = field(init=False)
    outbox: Outbox = field(init=False)
    census: Census = field(init=False)
    reports: Reports = field(init=False)
    events: Events = field(init=False)

    def __post_init__(self) -> None:
        self.client = Storage(self.url, 5.0)
        names, sealer = Names(self.index), Sealer(self.secrets)
        self.users = Users(self.client, names, sealer, HOUR_MS)
        self.outbox = Outbox(self.client, sealer, LEASE_MS)
        self.census = Census(self.client, sealer)
        self.reports = Reports(self.client, HOUR_MS)
        self.events = Events(self.client, names)

    @property
    def service(self) -> Service:
        hourly = Budget(self.limit, 3600 if self.limit else 0)
        mailbox = Budget(self.mailbox_limit, 3600 if self.mailbox_limit else 0)
        return Service(
            id=self.name,
            ttl_s=self.ttl_s,
            address_limit=hourly,
            mailbox_limit=mailbox,
            verify_limit=hourly,
            test=self.test,
            events=ENDPOINT if self.listens else None,
        )

    def close(self) -> None:
        self.client.close()

    def keys(self, address: Address) -> UserKeys:
        return self.users.keys(self.service, address)

    def verify(self, address: Address, number: str, key: str = "") -> str:
        """The token. `key`: an Idempotency-Key."""
        return self.users.verify(self.service, address, number, key).contents.token

    def resent(self, address: Address, *, lease_ms: int = LEASE_MS) -> Stored | None:
        """One call of resend_mail.lua."""
        record = self.users.find(self.keys(address).user_id)
        assert record is not None
        return self.users.resend(record, self.service, lease_ms=lease_ms)

    def outcome(
        self, address: Address, *, token: str = "t0ken", key: str = "", lease_ms: int = LEASE_MS
    ) -> Stored | Registered:
        """One call of register.lua. `key`: an Idempotency-Key."""
        keys, draft = self.keys(address), Draft(address, token, "en", self.service)
        found = self.users.register(
            keys,
            draft,
            NumberGenerator(DIGITS).draw_distinct(keys.shard, 4),
            lease_ms=lease_ms,
            once=self.users.once("", draft, key) if key else None,
        )
        assert found is not None
        return found

    def answered(self, address: Address, registration: Registration, delivery: Delivery | None) -> None:
        """Keeps the answer of a request with the Idempotency-Key KEY; None: it came to nothing."""
        once = self.users.once("", Draft(address, "t0ken", "en", self.service), KEY)
        made_ms, life_ms = registration.asked_for_ms, self.ttl_s * 1000
        answer = Registered(registration.user_id, delivery, made_ms, made_ms + life_ms) if delivery else None
        self.users.keep_answer(once, registration, answer)

    def registered(self, address: Address, *, key: str = "", lease_ms: int = LEASE_MS) -> Stored:
        found = self.outcome(address, key=key, lease_ms=lease_ms)
        assert isinstance(found, Stored)
        return found
