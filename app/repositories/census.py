"""How much there is in Redis: counted at a bounded cost, or exactly where an operator asks for it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import redis
from redis.cluster import RedisCluster

from app.domain.number import SHARDS
from app.repositories.keys import Field, keys_of, outbox_key
from app.storage.scripts import storage_errors

SHARDS_A_TIME = 100
"""One pipeline: a millisecond of this process, after which others get their turn."""

ENTRIES_LOOKED_AT = 2000
"""Of the outbox, for the age of the oldest. More are owed only while the mail server is down, and then the
first of every shard, whose turn is next, stand for the others."""

KEYS_A_RECORD = 2
"""A registration is a record and a number."""


@dataclass(frozen=True, slots=True)
class OutboxSize:
    """The outbox as a whole. `oldest_ms`: Unix ms when its oldest registration was made; None = empty."""

    depth: int
    oldest_ms: int | None


class Census:
    """Counts. Every method raises StorageUnavailable."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def owed(self) -> OutboxSize:
        """The outbox: exact in its depth; its oldest entry among the first 2,000."""
        depths: dict[int, int] = {}
        with storage_errors():
            for shards in _parts(range(SHARDS)):
                pipeline = self._client.pipeline(transaction=False)
                for shard in shards:
                    pipeline.zcard(outbox_key(shard))
                found = zip(shards, pipeline.execute(), strict=True)
                depths.update((shard, depth) for shard, depth in found if depth)
            created = [made for part in _parts(depths) for made in self._made(part, len(depths))]
        return OutboxSize(sum(depths.values()), min(created, default=None))

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
        counted: Counter[int] = Counter()
        with storage_errors():
            for key in self._client.scan_iter(match="{*}:number:*", count=1000):
                counted[int(key[1:4])] += 1
        return counted

    def _made(self, shards: list[int], crowded: int) -> list[int]:
        """When the registrations at the head of these shards' outboxes were made."""
        each = max(1, ENTRIES_LOOKED_AT // crowded)
        heads = self._client.pipeline(transaction=False)
        for shard in shards:
            heads.zrange(outbox_key(shard), 0, each - 1)
        records = self._client.pipeline(transaction=False)
        for user_id in (user_id for head in heads.execute() for user_id in head):
            records.hget(keys_of(user_id.decode()).user, Field.CREATED_MS)
        return [int(created) for created in records.execute() if created is not None]


def _is_cluster(client: object) -> bool:
    return isinstance(client, RedisCluster)


def _parts(shards: "range | dict[int, int]") -> Iterator[list[int]]:
    remaining = iter(shards)
    while part := list(islice(remaining, SHARDS_A_TIME)):
        yield part
