"""The outbox: which mails are owed, and who is sending to whom.

An entry is made in the same commit as its registration and goes with the mail server's acceptance. A
sender holds the address's lease, so that one address has one sender at a time.
"""

from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from app.domain.registration import Contents, Delivery, Registration, mail_id
from app.errors import RecordUnreadable, StorageUnavailable
from app.repositories import locks
from app.repositories.keys import RELAY_LOCK, keys_of, name_of, shard_keys
from app.repositories.records import Sealer, checked
from app.repositories.scripts import (
    LONGEST_LEASE_MS,
    LONGEST_MAIL_WAIT_MS,
    ClaimMail,
    DropMail,
    RenewLease,
    RetryMail,
    SettleMail,
)
from app.storage.storage import Storage

LAST_MS = 253_402_300_799_000
"""The end of the year 9999: nothing is due later."""

DROPPED = "dropped by the operator"


class Dropped(StrEnum):
    """What came of dropping a mail."""

    DROPPED = "dropped"
    SENDING = "sending"
    NONE = "none"


class Claim(NamedTuple):
    """What came of asking for a lease. It is ours where there is a mail id.

    `registration`: what to mail; None with `unreadable`, when the record does not open.
    `later_ms`: not now, but then. Without either there is nothing to do. `given_up`: the contents of a
    registration whose mail was too old, and is owed no more.
    """

    mail_id: str = ""
    registration: Registration | None = None
    attempts: int = 0
    later_ms: int | None = None
    given_up: Contents | None = None

    @property
    def unreadable(self) -> bool:
        return bool(self.mail_id) and self.registration is None


class Settled(NamedTuple):
    """What came of a settling.

    `delivery`: what the record says of the mail now; None where no record does, as it was erased, replaced
    or ended, or the lease was lost. `replacement`: what is to be mailed now, under the same lease. `left`:
    another mail is owed, and the relay has to send it. `lost`: another has the lease, or it ran out and the
    mail was not accepted; nothing was written.
    """

    delivery: Delivery | None = None
    replacement: Registration | None = None
    left: bool = False
    lost: bool = False


class Due(NamedTuple):
    """An entry of the outbox. `due_ms`: Unix time in ms by the clock of Redis."""

    user_id: str
    due_ms: int


class Outbox:
    """The outbox in Redis. Every method raises StorageUnavailable, having changed nothing or all."""

    def __init__(self, storage: Storage, sealer: Sealer, lease_ms: int) -> None:
        self._storage = storage
        self._sealer = sealer
        self.lease_ms = lease_ms

    def claim(self, user_id: str, owner: str) -> Claim:
        """Takes the lease of an address whose mail is due."""
        keys = keys_of(user_id)
        answer = self._storage.run(
            ClaimMail(
                *keys.mail,
                *keys.announcing,
                id=user_id,
                owner=owner,
                lease_ms=self.lease_ms,
            )
        )
        match answer:
            case [b"claimed", registration_id, _, _, attempts, resends, _]:
                mail = mail_id(registration_id.decode(), resends)
                return Claim(mail, self._registration(user_id, answer[1:]), attempts)
            case [b"later", left_ms]:
                return Claim(later_ms=left_ms)
            case [b"failed", sealed]:
                with suppress(RecordUnreadable):
                    return Claim(given_up=self._sealer.open_record(sealed, user_id))
                return Claim()
            case _:
                return Claim()

    def put_off(self, user_id: str) -> None:
        """Lets an entry wait whose keys cannot be used: as the first of its shard it would keep a sweep from
        the entries behind it. Raises nothing, since the outbox itself may be what is wrong."""
        with suppress(StorageUnavailable):
            due_ms = self.now_ms() + LONGEST_MAIL_WAIT_MS - LONGEST_LEASE_MS
            self._storage.command("ZADD", keys_of(user_id).outbox, "XX", due_ms, user_id)

    def renew(self, user_id: str, owner: str) -> bool:
        """Keeps the lease; False when it is no longer ours."""
        keys = keys_of(user_id)
        return bool(self._storage.run(RenewLease(keys.sender, keys.outbox, user_id, owner, self.lease_ms)))

    def settle(
        self,
        user_id: str,
        mail_id: str,
        owner: str,
        delivery: Delivery | Literal["released"],
        *,
        wait_ms: int = 0,
        error: str = "",
        go_on: bool = False,
    ) -> Settled:
        """Writes down what came of a mail and lets the lease go. REFUSED erases the registration.

        `mail_id`: as in `Registration`. `go_on`: where another mail is owed by now, keep the lease and return
        that one.
        """
        keys = keys_of(user_id)
        answer = self._storage.run(
            SettleMail(
                *keys.mail,
                *keys.announcing,
                *keys.end,
                id=user_id,
                mail=mail_id,
                owner=owner,
                lease_ms=self.lease_ms,
                delivery=str(delivery),
                wait_ms=wait_ms,
                error_code=error,
                go_on=int(go_on),
                prefix=keys.number_prefix,
            )
        )
        match answer:
            case [b"settled", state]:
                return Settled(delivery=Delivery(state.decode()) if state else None)
            case [b"replaced", *fields]:
                replacement = self._registration(user_id, fields)
                return Settled(replacement=replacement, left=replacement is None)
            case _:
                return Settled(left=answer == [b"left"], lost=answer == [b"lost"])

    def release(self, user_id: str, mail_id: str, owner: str) -> Settled:
        """Lets the lease go of a mail that was not begun: it is due for every sender."""
        return self.settle(user_id, mail_id, owner, "released")

    def retry(self, user_id: str) -> bool:
        """Makes a pending or failed mail due now; False when there is none. Raises NewerRecord."""
        return checked(self._storage.run(RetryMail(*keys_of(user_id).mail, id=user_id))) == "due"

    def drop(self, user_id: str) -> Dropped:
        """Gives up a pending mail; the registration stays. Raises NewerRecord."""
        keys = keys_of(user_id)
        call = DropMail(*keys.mail, *keys.announcing, id=user_id, error_code=DROPPED)
        return Dropped(checked(self._storage.run(call)))

    def due(self, shards: Iterable[int], until_ms: int, limit: int) -> list[Due]:
        """Entries of these shards that are due until then, at most `limit` a shard.

        `until_ms`: less than a lease from now. What lies further ahead than any wait can be is due now; only
        a shard with more entries than `limit` is asked for it apart. Shards whose master is away
        are left out.
        """
        far_ms, now_ms = until_ms + LONGEST_MAIL_WAIT_MS, until_ms - LONGEST_LEASE_MS
        found = self._entries(shards, "-inf", limit)
        found += self._entries([shard for shard, first in found if len(first) == limit], far_ms, limit)
        dues = {user: due for _, some in found for user, due in some}
        return [
            Due(name_of(user), time_ms(due) if due <= until_ms else now_ms)
            for user, due in dues.items()
            if due <= until_ms or due >= far_ms
        ]

    def _entries(
        self, shards: Iterable[int], first_ms: int | str, limit: int
    ) -> list[tuple[int, list[tuple[bytes, float]]]]:
        """The first entries of each shard that are due at `first_ms` or later."""
        first = (first_ms, "+inf", "WITHSCORES", "LIMIT", 0, limit)
        found = self._storage.ask_each(
            shards, lambda shard: ("ZRANGEBYSCORE", shard_keys(shard).outbox, *first), partly=True
        )
        return list(found)

    def hold_relay(self, owner: str, ttl_ms: int) -> bool:
        """Takes or keeps the right to sweep, 0 lets it go; one process has it at a time (see `locks`)."""
        return locks.hold(self._storage, RELAY_LOCK, owner, ttl_ms)

    def now_ms(self) -> int:
        """The time by the clock of Redis, by which everything here is due."""
        return self._storage.now_ms()

    def _registration(self, user_id: str, fields: list[Any]) -> Registration | None:
        """None for a record that does not open: sealed with a key that this process lacks, or the like."""
        registration_id, sealed, asked_for_ms, attempts, resends, left_ms = fields
        try:
            contents = self._sealer.open_record(sealed, user_id)
        except RecordUnreadable:
            return None
        return contents.registration(
            user_id,
            registration_id.decode(),
            asked_for_ms,
            attempts,
            resends,
            left_ms if left_ms >= 0 else None,
        )


def time_ms(score: float) -> int:
    """When an entry is due. A score that is no time, as others may have written, becomes the nearest one."""
    return int(min(max(score, 0), LAST_MS))
