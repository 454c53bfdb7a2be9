"""What the events of one user are, and their delivery by hand."""

from dataclasses import dataclass
from typing import NamedTuple

from app.domain.address import Address
from app.domain.registration import Delivery, EventKind, Stored
from app.domain.report import ReportKind
from app.repositories.events import Claim, Left, Queue
from app.repositories.outbox import Settled
from tests.support.people import HOUR_MS, Process
from tests.support.scan import Client
from tests.support.values import text, there

KINDS_OF_KEY = ("events", "schedule", "waiting", "expiry", "expiries")
"""What Redis holds for the sake of events."""


class Told(NamedTuple):
    """One event, as it is written. Times in Unix ms."""

    kind: str
    at_ms: int
    created_ms: int


@dataclass
class Person:
    """One address at the service of a process, and what happens to it."""

    process: Process
    store: Client
    address: Address

    @property
    def user_id(self) -> str:
        return self.process.keys(self.address).user_id

    @property
    def queue(self) -> Queue:
        return Queue(self.process.name, self.user_id)

    @property
    def shards(self) -> list[int]:
        return [self.process.keys(self.address).shard]

    # What happens to a registration

    def registered(self, *, key: str = "", lease_ms: int = 25_000) -> Stored:
        return self.process.registered(self.address, key=key, lease_ms=lease_ms)

    def settled(self, stored: Stored, delivery: Delivery = Delivery.SENT, *, go_on: bool = False) -> Settled:
        mail = stored.registration
        error = "" if delivery is Delivery.SENT else "451"
        owner = there(stored.owner)
        return self.process.outbox.settle(
            mail.user_id, mail.mail_id, owner, delivery, error=error, go_on=go_on
        )

    def sent(self, *, key: str = "") -> Stored:
        stored = self.registered(key=key)
        self.settled(stored)
        return stored

    def reported(self, kind: ReportKind = ReportKind.BOUNCED, mail: int = 0) -> None:
        """A report of one of its mails; the address may be mailed again afterwards."""
        record = there(self.process.users.find(self.user_id))
        assert self.process.reports.note(record, kind, "5.1.1", mail)
        self.process.reports.lift(self.user_id)

    def verified(self, stored: Stored, key: str = "") -> None:
        assert self.process.verify(self.address, stored.registration.number, key) == "t0ken"

    def aged(self, hours: int) -> None:
        """Its registration seems to be so old."""
        self.store.hincrby(self.process.keys(self.address).user, "c", -hours * HOUR_MS)

    def ended(self) -> int:
        """Its registration reaches its end; returns when (ms). What Redis and senders do then is done."""
        keys = self.process.keys(self.address)
        number = keys.number_prefix + text(self.store.hget(keys.user, "n"))
        created, _, service = text(self.store.get(keys.expiry)).split("|")
        ended_ms = self.process.outbox.now_ms() - 1
        self.store.delete(keys.user, number)
        self.store.zrem(keys.outbox, self.user_id)
        self.store.set(keys.expiry, f"{created}|{ended_ms}|{service}", keepttl=True)
        self.store.zadd(keys.expiries, {self.user_id: ended_ms})
        return ended_ms

    def swept(self) -> int:
        """One sweep for registrations that have ended; returns how many events it wrote."""
        return sum(map(self.process.events.note_expiry, self.process.events.expired(self.shards)))

    # What its service is told

    @property
    def told(self) -> list[Told]:
        """What waits."""
        lines = self.store.lrange(self.process.keys(self.address).events, 0, -1)
        parts = [text(line).split("|") for line in lines]
        return [Told(kind, int(at), int(created)) for kind, at, created, _, _ in parts]

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.told]

    def claimed(self) -> Claim:
        return there(self.process.events.claim(self.queue))

    def delivered(self) -> list[EventKind]:
        """Delivers all that waits, one after the other."""
        found = []
        left = Left.MORE
        while left is Left.MORE:
            claim = self.process.events.claim(self.queue)
            if claim is None:
                break
            found.append(claim.event.kind)
            left = self.process.events.settle(self.queue, claim)
        return found


def text_of(queue: Queue) -> str:
    """The entry in the schedule."""
    return "|".join(queue)
