"""What stands in Redis as a whole: the mails that did not go out, and how much there is of everything.

Everything here reads many keys, some hundred in a round trip. Whatever concerns one address is elsewhere.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import structlog

from app.domain.number import SHARDS
from app.domain.registration import Delivery
from app.errors import RecordUnreadable
from app.repositories.keys import SEALED, Field, keys_of, outbox_key
from app.repositories.records import LAYOUT_VERSION, RecordSeal
from app.repositories.sealing import Sealer
from app.storage.exchange import Command
from app.storage.storage import Storage

T = TypeVar("T")

AT_A_TIME = 100
"""Keys in one round trip: a millisecond of this process, after which others get their turn."""

ENTRIES_LOOKED_AT = 2000
"""Of the outbox, for the age of the oldest. More are owed only while the mail server is down, and then the
first of every shard, whose turn is next, stand for the others."""

KEYS_A_RECORD = 2
"""A registration is a record and a number."""

OWED = (Field.LAYOUT, Field.DELIVERY, Field.ERROR, Field.ATTEMPTS, Field.CREATED_MS)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Owed:
    """A mail that did not go out. Times in Unix ms; `due_ms` None for one that was given up."""

    user_id: str
    delivery: Delivery
    error: str
    attempts: int
    created_ms: int
    due_ms: int | None
    sealed: bytes


@dataclass(frozen=True, slots=True)
class OutboxSize:
    """The outbox as a whole. `oldest_ms`: Unix ms when its oldest registration was made; None = empty."""

    depth: int
    oldest_ms: int | None


class Census:
    """Lists and counts. Every method raises StorageUnavailable."""

    def __init__(self, storage: Storage, sealer: Sealer) -> None:
        self._storage = storage
        self._records = RecordSeal(sealer)

    def pending(self) -> Iterator[Owed]:
        """The mails in the outbox."""
        shards = self._each(range(SHARDS), lambda shard: ("ZRANGE", outbox_key(shard), 0, -1, "WITHSCORES"))
        yield from self._owed((user.decode(), due) for _, entries in shards for user, due in entries)

    def failed(self) -> Iterator[Owed]:
        """The mails that were given up. Reads the delivery of every user: seconds for a million."""
        keys = self._storage.scan("{*}:user:*")
        users = (key.decode().rpartition(":")[2] for key in keys)
        found = self._each(users, lambda user: ("HGET", keys_of(user).user, Field.DELIVERY))
        yield from self._owed((user, None) for user, delivery in found if delivery == b"failed")

    def address(self, owed: Owed) -> str:
        """To whom it goes; empty when the record does not open."""
        try:
            return self._records.open(owed.sealed, owed.user_id)[0].address.email
        except RecordUnreadable:
            return ""

    def owed(self) -> OutboxSize:
        """The outbox: exact in its depth; its oldest entry among the first 2,000."""
        depths = dict(self._each(range(SHARDS), lambda shard: ("ZCARD", outbox_key(shard))))
        crowded = [shard for shard, depth in depths.items() if depth]
        last = max(1, ENTRIES_LOOKED_AT // max(1, len(crowded))) - 1
        heads = self._each(crowded, lambda shard: ("ZRANGE", outbox_key(shard), 0, last))
        users = (user.decode() for _, head in heads for user in head)
        made = self._each(users, lambda user: ("HGET", keys_of(user).user, Field.CREATED_MS))
        oldest_ms = min((int(created) for _, created in made if created is not None), default=None)
        return OutboxSize(sum(depths.values()), oldest_ms)

    def records_at_most(self) -> int:
        """Live registrations, at most: other keys, such as budgets, are counted as if they were some.

        Takes one command that costs Redis nothing, however many keys there are.
        """
        return self._storage.size() // KEYS_A_RECORD

    def numbers_by_shard(self) -> Counter[int]:
        """How many numbers each shard has given out. Reads every key: seconds for a million."""
        keys = self._storage.scan("{*}:number:*")
        return Counter(int(key[1:4]) for key in keys)

    def _owed(self, entries: Iterable[tuple[str, float | None]]) -> Iterator[Owed]:
        """Those whose record can be read here. A newer one is left to a newer process."""
        records = self._each(entries, lambda entry: ("HMGET", keys_of(entry[0]).user, *OWED, *SEALED))
        for (user_id, due), (version, delivery, error, attempts, created_ms, *sealed) in records:
            if version is None:  # erased meanwhile
                continue
            try:
                if int(version) > LAYOUT_VERSION:
                    log.warning("newer_record_not_listed", user_id=user_id)
                    continue
                yield Owed(
                    user_id=user_id,
                    delivery=Delivery(delivery.decode()),
                    error=(error or b"").decode(),
                    attempts=int(attempts),
                    created_ms=int(created_ms),
                    due_ms=None if due is None else int(due),
                    sealed=b"".join(part or b"" for part in sealed),
                )
            except (AttributeError, TypeError, ValueError):
                log.error("damaged_record_not_listed", user_id=user_id)

    def _each(self, items: Iterable[T], ask: Callable[[T], Command]) -> Iterator[tuple[T, Any]]:
        """Every item with the answer to one command about it; many commands in a round trip."""
        remaining = iter(items)
        while part := list(islice(remaining, AT_A_TIME)):
            yield from zip(part, self._storage.pipeline([ask(item) for item in part]), strict=True)
