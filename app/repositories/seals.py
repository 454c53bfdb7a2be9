"""The seals of all records: which key each one needs, and how all get the newest one.

For the operator's commands; a serving process uses none of it. Imports the storage room, and this one.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from itertools import islice
from typing import NamedTuple

from app.errors import SealBroken
from app.repositories.keys import SEALED, Field, keys_of, name_of
from app.repositories.records import CLEAR, LAYOUT_VERSION, Sealer
from app.repositories.scripts import ResealRecord
from app.storage.storage import AT_A_TIME, Storage

BATCHES_A_SECOND = 10
"""At a low rate a batch is smaller, so that the load is even."""

KEYS_A_RECORD = 20
"""Looked at in vain for each record of a sample: its number, budgets, lease and marks."""

FIELDS = (Field.REGISTRATION, Field.LAYOUT, *SEALED)
NO_RECORD = (b"", *[None] * (len(FIELDS) - 1))


class Verdict(StrEnum):
    """What became of one record, or why it does not open here."""

    RESEALED = "sealed anew"
    ALREADY = "sealed so already"
    CHANGED = "changed meanwhile"
    """Replaced, verified or erased after it had been read."""
    NO_KEY = "key not configured"
    CLEAR = "in clear"
    NEWER = "of a newer version"
    DAMAGED = "damaged"


UNREADABLE = (Verdict.NO_KEY, Verdict.CLEAR, Verdict.NEWER, Verdict.DAMAGED)


class SealedRecord(NamedTuple):
    """A record as it was read. `sealed` is empty where the key holds no record of ours."""

    user_id: str
    registration_id: bytes
    layout: int
    sealed: bytes


class Seals:
    """Every method raises StorageUnavailable."""

    def __init__(self, storage: Storage, sealer: Sealer) -> None:
        self._storage = storage
        self._sealer = sealer

    @property
    def has_key(self) -> bool:
        return self._sealer.seals

    def user_ids(self) -> Iterator[str]:
        """Everybody who is registered, in the order of SCAN; some may come twice."""
        return map(name_of, self._storage.scan("{*}:user:*"))

    def sample(self, at_most: int) -> list[SealedRecord]:
        """Some records, from a bounded number of keys. SCAN's order is that of hashes: as good as chance."""
        keys = islice(self._storage.scan("*"), at_most * KEYS_A_RECORD)
        user_ids = [name_of(key) for key in keys if b":user:" in key]
        return list(self.read(user_ids[:at_most]))

    def read(self, user_ids: Iterable[str]) -> Iterator[SealedRecord]:
        """The records of these users; those that are gone are left out."""
        found = self._storage.ask_each(
            user_ids, lambda user: ("HMGET", keys_of(user).user, *FIELDS), instead=NO_RECORD
        )
        for user_id, (registration_id, layout, *parts) in found:
            if registration_id is not None:
                # A version that is no number, or none: what is sealed shows what the record is.
                version = int(layout) if layout and layout.isdigit() else 0
                yield SealedRecord(user_id, registration_id, version, b"".join(part or b"" for part in parts))

    def key_needed(self, record: SealedRecord) -> int | Verdict:
        """The place of its key among the secrets, 0 = the first; or why it does not open."""
        if not record.sealed:
            return Verdict.DAMAGED
        if record.layout > LAYOUT_VERSION:
            return Verdict.NEWER
        try:
            return self._sealer.opened(record.sealed, record.user_id)[0]
        except SealBroken:
            mark = record.sealed[:1]
            if mark in self._sealer.readable:
                return Verdict.DAMAGED
            return Verdict.CLEAR if mark == CLEAR else Verdict.NO_KEY

    def reseal(self, record: SealedRecord) -> Verdict:
        """Seals one record anew with the first secret, unless it has changed since it was read."""
        needed = self.key_needed(record)
        if isinstance(needed, Verdict):
            return needed
        if needed == 0:
            return Verdict.ALREADY
        text = self._sealer.open(record.sealed, record.user_id)
        sealed = self._sealer.seal(text, record.user_id)
        user = keys_of(record.user_id).user
        call = ResealRecord(user, record.registration_id, old=record.sealed, new=sealed)
        return Verdict.RESEALED if self._storage.run(call) else Verdict.CHANGED

    def reseal_all(
        self,
        rate: int,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> Iterator[Counter[Verdict]]:
        """Seals every record anew, at most `rate` a second; yields what was done so far, batch by batch.

        It may be interrupted at any time and begun again: a record is sealed in one step or not at all.
        """
        size = max(1, min(AT_A_TIME, rate // BATCHES_A_SECOND))
        done: Counter[Verdict] = Counter()
        records = self.read(self.user_ids())
        while True:
            began = clock()
            batch = list(islice(records, size))
            if not batch:
                return
            done.update(self.reseal(record) for record in batch)
            yield done
            pause(max(0.0, len(batch) / rate - (clock() - began)))
