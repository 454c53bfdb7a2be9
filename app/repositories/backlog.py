"""What an operator sees of the mails that did not go out, and may do about them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TypeVar

import redis

from app.domain.number import SHARDS
from app.domain.registration import Delivery
from app.repositories.keys import SEALED, Field, keys_of, outbox_key
from app.repositories.sealing import SealBroken, Sealer
from app.repositories.users import RecordSeal
from app.storage.scripts import load_script, run, storage_errors

T = TypeVar("T")

AT_A_TIME = 500
"""Keys in one round trip: some milliseconds of Redis."""

DROPPED = "dropped by the operator"


OWED = (Field.DELIVERY, Field.ERROR, Field.ATTEMPTS, Field.CREATED_MS)


class Dropped(StrEnum):
    """What came of dropping a mail."""

    DROPPED = "dropped"
    SENDING = "sending"
    NONE = "none"


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


class Backlog:
    """The mails that are pending or failed. Every method raises StorageUnavailable."""

    def __init__(self, client: redis.Redis, sealer: Sealer) -> None:
        self._client = client
        self._records = RecordSeal(sealer)
        self._retry = load_script(client, "retry_mail")
        self._drop = load_script(client, "drop_mail")

    def pending(self) -> Iterator[Owed]:
        """Mails in the outbox."""
        with storage_errors():
            for shards in _parts(range(SHARDS)):
                pipeline = self._client.pipeline(transaction=False)
                for shard in shards:
                    pipeline.zrange(outbox_key(shard), 0, -1, withscores=True)
                entries = [(user.decode(), due) for shard in pipeline.execute() for user, due in shard]
                for part in _parts(entries):
                    yield from self._described(part)

    def failed(self) -> Iterator[Owed]:
        """Mails that were given up. Reads the delivery of every user: seconds for a million."""
        with storage_errors():
            keys = self._client.scan_iter(match="{*}:user:*", count=AT_A_TIME)
            users = (key.decode().rpartition(":")[2] for key in keys)
            for part in _parts(users):
                pipeline = self._client.pipeline(transaction=False)
                for user_id in part:
                    pipeline.hget(keys_of(user_id).user, Field.DELIVERY)
                found = zip(part, pipeline.execute(), strict=True)
                yield from self._described(
                    [(user, None) for user, delivery in found if delivery == b"failed"]
                )

    def retry(self, user_id: str) -> bool:
        """Makes a pending or failed mail due now; False when there is none."""
        keys = keys_of(user_id)
        return bool(run(self._retry, [keys.user, keys.sender, keys.outbox], [user_id]))

    def drop(self, user_id: str) -> Dropped:
        """Gives up a pending mail; the registration stays."""
        keys = keys_of(user_id)
        answer = run(self._drop, [keys.user, keys.sender, keys.outbox], [user_id, DROPPED])
        return Dropped(answer.decode())

    def address(self, owed: Owed) -> str:
        """To whom it goes; empty when the record does not open."""
        try:
            return self._records.open(owed.sealed, owed.user_id)[0].address.email
        except SealBroken:
            return ""

    def _described(self, entries: Sequence[tuple[str, float | None]]) -> Iterator[Owed]:
        pipeline = self._client.pipeline(transaction=False)
        for user_id, _ in entries:
            pipeline.hmget(keys_of(user_id).user, *OWED, *SEALED)
        for (user_id, due), fields in zip(entries, pipeline.execute(), strict=True):
            delivery, error, attempts, created_ms, *sealed = fields
            if delivery is None:  # erased meanwhile
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


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while part := list(islice(iterator, AT_A_TIME)):
        yield part
