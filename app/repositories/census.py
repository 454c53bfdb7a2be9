"""What stands in Redis as a whole: the mails that did not go out, and how much there is of everything.

Everything here reads many keys. What concerns one address is in `users` and `outbox`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import structlog

from app.domain.number import SHARDS
from app.domain.registration import Delivery
from app.errors import RecordUnreadable
from app.repositories.keys import SEALED, Field, keys_of, name_of, shard_keys
from app.repositories.outbox import time_ms
from app.repositories.records import LAYOUT_VERSION, Sealer
from app.storage.storage import Storage

ENTRIES_LOOKED_AT = 2000
"""Of the outbox, for the age of the oldest. More are owed only while the mail server is down, and then the
first of every shard, whose turn is next, stand for the others."""

KEYS_A_RECORD = 2
"""A registration is a record and a number."""

ASKED_FOR_MS = (Field.SINCE_MS, Field.CREATED_MS)
"""When a mail was asked for: again, or, where that is missing, with its registration."""

OWED = (Field.LAYOUT, Field.DELIVERY, Field.ERROR, Field.ATTEMPTS, *ASKED_FOR_MS)

log = structlog.get_logger()


class Owed(NamedTuple):
    """A mail that did not go out. Times in Unix ms; `due_ms` None for one that was given up."""

    user_id: str
    delivery: Delivery
    error: str
    attempts: int
    asked_for_ms: int
    due_ms: int | None
    sealed: bytes


class OutboxSize(NamedTuple):
    """The outbox as a whole. `oldest_ms`: Unix ms when its oldest mail was asked for; None = empty.

    `reasons`: why the last try failed, and of how many mails; empty for those that were not tried.
    """

    depth: int
    oldest_ms: int | None
    reasons: Counter[str]


def memory_used(info: Mapping[str, str]) -> float | None:
    """The used share of `maxmemory`, as Redis counts when it refuses writes: without the buffers of replicas
    and of the append-only file. `info`: what INFO tells. None without `maxmemory`."""
    limit, used, uncounted = (
        int(told) if (told := info.get(name, "")).isdigit() else 0
        for name in ("maxmemory", "used_memory", "mem_not_counted_for_evict")
    )
    return (used - uncounted) / limit if limit else None


class Census:
    """Lists and counts. Every method raises StorageUnavailable."""

    def __init__(self, storage: Storage, sealer: Sealer) -> None:
        self._storage = storage
        self._sealer = sealer

    def pending(self) -> Iterator[Owed]:
        """The mails in the outbox."""
        shards = self._storage.ask_each(
            range(SHARDS),
            lambda shard: ("ZRANGE", shard_keys(shard).outbox, 0, -1, "WITHSCORES"),
        )
        yield from self._owed((name_of(user), time_ms(due)) for _, found in shards for user, due in found)

    def failed(self) -> Iterator[Owed]:
        """The mails that were given up. Reads the delivery of every user: seconds for a million."""
        keys = self._storage.scan("{*}:user:*")
        users = map(name_of, keys)
        found = self._storage.ask_each(users, lambda user: ("HGET", keys_of(user).user, Field.DELIVERY))
        yield from self._owed((user, None) for user, delivery in found if delivery == b"failed")

    def address(self, owed: Owed) -> str:
        """To whom it goes; empty when the record does not open."""
        try:
            return self._sealer.open_record(owed.sealed, owed.user_id).address.email
        except RecordUnreadable:
            return ""

    def owed(self) -> OutboxSize:
        """The outbox: exact in its depth; its oldest entry and the reasons among the first 2,000."""
        depths = dict(
            self._storage.ask_each(range(SHARDS), lambda shard: ("ZCARD", shard_keys(shard).outbox))
        )
        crowded = [shard for shard, depth in depths.items() if depth]
        last = max(1, ENTRIES_LOOKED_AT // max(1, len(crowded))) - 1
        heads = self._storage.ask_each(crowded, lambda shard: ("ZRANGE", shard_keys(shard).outbox, 0, last))
        users = (name_of(user) for _, head in heads for user in head)
        fields = (*ASKED_FOR_MS, Field.ERROR)
        records = self._storage.ask_each(users, lambda user: ("HMGET", keys_of(user).user, *fields))
        times, reasons = [], Counter[str]()
        for _, (again, created, error) in records:
            if time := again or created:  # its record is there
                times.append(time)
                reasons[(error or b"").decode(errors="replace")] += 1
        oldest_ms = min((int(time) for time in times if time.isdigit()), default=None)
        return OutboxSize(sum(depths.values()), oldest_ms, reasons)

    def records_at_most(self) -> int:
        """Live registrations, at most: other keys, such as budgets, are counted as if they were some.

        Takes one command that costs Redis nothing, however many keys there are.
        """
        return self._storage.size() // KEYS_A_RECORD

    def memory_used(self) -> float | None:
        """The used share of `maxmemory`, on the fullest server; None where no server tells one."""
        used = [memory_used(server.info("memory")) for server in self._storage.servers()]
        return max((share for share in used if share is not None), default=None)

    def numbers_by_shard(self) -> Counter[int]:
        """How many numbers each shard has given out. Reads every key: seconds for a million."""
        keys = self._storage.scan("{*}:number:*")
        return Counter(int(key[1:4]) for key in keys if key[1:4].isdigit())

    def _owed(self, entries: Iterable[tuple[str, int | None]]) -> Iterator[Owed]:
        """Those whose record can be read here. A newer one is left to a newer process."""
        records = self._storage.ask_each(
            entries, lambda entry: ("HMGET", keys_of(entry[0]).user, *OWED, *SEALED)
        )
        for (user_id, due_ms), (version, delivery, error, attempts, again, created, *sealed) in records:
            if version is None:  # erased meanwhile
                continue
            try:
                if int(version) > LAYOUT_VERSION:
                    log.warning("newer_record_not_listed", user_id=user_id)
                    continue
                yield Owed(
                    user_id=user_id,
                    delivery=Delivery((delivery or b"").decode()),
                    error=(error or b"").decode(),
                    attempts=int(attempts or b""),
                    asked_for_ms=int(again or created or b""),
                    due_ms=due_ms,
                    sealed=b"".join(part or b"" for part in sealed),
                )
            except ValueError:
                log.error("damaged_record_not_listed", user_id=user_id)
