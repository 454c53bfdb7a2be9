"""What stands in Redis as a whole: the mails that did not go out, and how much there is of everything.

Everything here reads many keys, some hundred in a round trip. Whatever concerns one address is elsewhere.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import redis
import structlog
from redis.cluster import RedisCluster

from app.domain.number import SHARDS
from app.domain.registration import Delivery
from app.errors import RecordUnreadable
from app.repositories.keys import SEALED, Field, keys_of, outbox_key
from app.repositories.records import LAYOUT_VERSION, RecordSeal
from app.repositories.sealing import Sealer
from app.storage.scripts import storage_errors

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

    def __init__(self, client: redis.Redis, sealer: Sealer) -> None:
        self._client = client
        self._records = RecordSeal(sealer)

    def pending(self) -> Iterator[Owed]:
        """The mails in the outbox."""
        with storage_errors():
            shards = self._each(
                range(SHARDS), lambda ask, shard: ask.zrange(outbox_key(shard), 0, -1, withscores=True)
            )
            yield from self._owed((user.decode(), due) for _, entries in shards for user, due in entries)

    def failed(self) -> Iterator[Owed]:
        """The mails that were given up. Reads the delivery of every user: seconds for a million."""
        with storage_errors():
            keys = self._client.scan_iter(match="{*}:user:*", count=1000)
            users = (key.decode().rpartition(":")[2] for key in keys)
            found = self._each(users, lambda ask, user: ask.hget(keys_of(user).user, Field.DELIVERY))
            yield from self._owed((user, None) for user, delivery in found if delivery == b"failed")

    def address(self, owed: Owed) -> str:
        """To whom it goes; empty when the record does not open."""
        try:
            return self._records.open(owed.sealed, owed.user_id)[0].address.email
        except RecordUnreadable:
            return ""

    def owed(self) -> OutboxSize:
        """The outbox: exact in its depth; its oldest entry among the first 2,000."""
        with storage_errors():
            depths = dict(self._each(range(SHARDS), lambda ask, shard: ask.zcard(outbox_key(shard))))
            crowded = [shard for shard, depth in depths.items() if depth]
            last = max(1, ENTRIES_LOOKED_AT // max(1, len(crowded))) - 1
            heads = self._each(crowded, lambda ask, shard: ask.zrange(outbox_key(shard), 0, last))
            users = (user.decode() for _, head in heads for user in head)
            made = self._each(users, lambda ask, user: ask.hget(keys_of(user).user, Field.CREATED_MS))
            oldest_ms = min((int(created) for _, created in made if created is not None), default=None)
        return OutboxSize(sum(depths.values()), oldest_ms)

    def records_at_most(self) -> int:
        """Live registrations, at most: other keys, such as budgets, are counted as if they were some.

        Takes one command that costs Redis nothing, however many keys there are.
        """
        with storage_errors():
            # A cluster asks one node unless it is told to ask all masters.
            everywhere = {"target_nodes": RedisCluster.PRIMARIES} if _is_cluster(self._client) else {}
            return int(self._client.dbsize(**everywhere)) // KEYS_A_RECORD

    def numbers_by_shard(self) -> Counter[int]:
        """How many numbers each shard has given out. Reads every key: seconds for a million."""
        with storage_errors():
            keys = self._client.scan_iter(match="{*}:number:*", count=1000)
            return Counter(int(key[1:4]) for key in keys)

    def _owed(self, entries: Iterable[tuple[str, float | None]]) -> Iterator[Owed]:
        """Those whose record can be read here. A newer one is left to a newer process."""
        records = self._each(entries, lambda ask, entry: ask.hmget(keys_of(entry[0]).user, *OWED, *SEALED))
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

    def _each(self, items: Iterable[T], ask: Callable[[Any, T], object]) -> Iterator[tuple[T, Any]]:
        """Every item with the answer to one command about it; many commands in a round trip."""
        remaining = iter(items)
        while part := list(islice(remaining, AT_A_TIME)):
            pipeline = self._client.pipeline(transaction=False)
            for item in part:
                ask(pipeline, item)
            yield from zip(part, pipeline.execute(), strict=True)


def _is_cluster(client: object) -> bool:
    return isinstance(client, RedisCluster)
