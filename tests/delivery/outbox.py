"""One process's share of the store, and many threads that ask it at the same moment."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any, TypeVar

from app.domain.address import Address
from app.domain.number import NumberGenerator
from app.domain.registration import Delivery, Draft, Registration, Stored
from app.domain.service import Service
from app.repositories.census import Census
from app.repositories.keys import Names
from app.repositories.outbox import Outbox, Settled
from app.repositories.records import Sealer
from app.repositories.users import Users
from app.storage.storage import Storage
from tests.support.people import DIGITS
from tests.support.values import there

LEASE_MS = 60_000

THREADS = 32

SECRET = "a secret of more than 32 characters, for tests"

T = TypeVar("T")


class Store:
    """Users, outbox and census of one process."""

    def __init__(self, url: str, *secrets: str, lease_ms: int = LEASE_MS) -> None:
        self.client = Storage(url, 5.0)
        sealer = Sealer(secrets)
        self.users = Users(self.client, Names(None), sealer)
        self.outbox = Outbox(self.client, sealer, lease_ms)
        self.census = Census(self.client, sealer)

    def register(self, address: str = "ada@example.com", *, lease_ms: int = LEASE_MS) -> Stored:
        """With a lease of 0 the mail is due for everybody at once."""
        draft = Draft(Address.parse(address), "t0ken", "en", Service())
        keys = self.users.keys(draft.service, draft.address)
        stored = self.users.register(
            keys, draft, [NumberGenerator(DIGITS).draw(keys.shard)], lease_ms=lease_ms
        )
        assert isinstance(stored, Stored)
        return stored

    def settle(
        self, registration: Registration, owner: str | None, delivery: Delivery, **more: Any
    ) -> Settled:
        """`owner`: of one who got the lease."""
        return self.outbox.settle(registration.user_id, registration.mail_id, there(owner), delivery, **more)

    def release(self, registration: Registration, owner: str | None) -> Settled:
        return self.outbox.release(registration.user_id, registration.mail_id, there(owner))

    def renew(self, user_id: str, owner: str | None) -> bool:
        return self.outbox.renew(user_id, there(owner))

    def delivery(self, registration: Registration) -> Delivery | None:
        found = self.users.find(registration.user_id)
        return found.delivery if found else None


def beginning(barrier: Barrier, work: Callable[[], T]) -> T:
    """Does the work when all have come to the barrier."""
    barrier.wait()
    return work()


def at_once(work: Callable[[int], T], threads: int = THREADS) -> list[T]:
    """Does the work in so many threads, all starting together."""
    barrier = Barrier(threads)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda number: beginning(barrier, partial(work, number)), range(threads)))
