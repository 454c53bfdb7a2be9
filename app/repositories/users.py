"""The records of users: one live registration for each address."""

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from app.domain.address import Address
from app.domain.budget import Budget
from app.domain.registration import Delivery, Draft, Registered, Registration, Stored, UserRecord
from app.errors import (
    IdempotencyKeyReused,
    NewerRecord,
    RecordUnreadable,
    RequestInProgress,
    SealBroken,
    TooManyAttempts,
    TooManyRegistrations,
    VerificationFailed,
)
from app.repositories.keys import SEALED, Field, Names, UserKeys, keys_of
from app.repositories.records import LAYOUT_VERSION, RecordSeal, checked, damaged, told
from app.repositories.scripts import EraseUser, Register, VerifyNumber
from app.repositories.sealing import Sealer
from app.storage.storage import Storage

RUNNING_MS = 5_000
"""How long a request that was stored and not answered yet counts as running. Its caller may have been told
503, or its process have died: after this time a repetition is answered from the record (register.lua)."""

WRONG_IN_A_ROW = 100
"""Wrong numbers that erase a registration: the guesser's chance is 100 in 9 x 10^7 at twelve digits."""


def fresh_token() -> str:
    """A name that nobody else draws: 16 characters, 64 bits."""
    return secrets.token_hex(8)


class Once(NamedTuple):
    """A request that must be carried out once (Idempotency-Key): its mark, and what makes it itself."""

    digest: str
    fingerprint: str


class Terms(NamedTuple):
    """What holds for every registration: `life_ms` 0 = for ever; `mark_ms`: life of an idempotency mark."""

    life_ms: int
    budget: Budget
    mark_ms: int


class Users:
    """The records in Redis. Every method raises StorageUnavailable, having changed nothing or all."""

    def __init__(self, storage: Storage, names: Names, sealer: Sealer) -> None:
        self._storage = storage
        self._names = names
        self._records = RecordSeal(sealer)

    def keys(self, address: Address) -> UserKeys:
        return self._names.user(address.identity)

    def once(self, client: str, draft: Draft, idempotency_key: str) -> Once:
        """The mark of one Idempotency-Key of one client for one address."""
        return Once(
            self._names.request(client, draft.address.identity, idempotency_key),
            self._names.fingerprint(draft.token, draft.locale),
        )

    def register(
        self,
        keys: UserKeys,
        draft: Draft,
        candidates: Sequence[str],
        terms: Terms,
        *,
        lease_ms: int,
        once: Once | None = None,
    ) -> Stored | Registered | None:
        """Registers the address with the first candidate that is free, and replaces what it had.

        One round trip, one decision (`register.lua`). Registered: this request was carried out before
        (`once`). None: every candidate is taken, and nothing has changed. Raises TooManyRegistrations,
        RequestInProgress, IdempotencyKeyReused, NewerRecord.
        """
        registration_id = fresh_token()  # nobody else draws it, so it names the lease, too
        digests = [self._names.number(number) for number in candidates]
        sealed = [self._records.seal(draft, number, keys.user_id) for number in candidates]
        answer = self._storage.run(
            Register(
                *keys.mail,
                sends=keys.sends,
                mark=keys.idempotency(once.digest if once else "none"),
                numbers=[keys.number_prefix + digest for digest in digests],
                id=keys.user_id,
                registration=registration_id,
                owner=registration_id,
                lease_ms=lease_ms,
                life_ms=terms.life_ms,
                version=LAYOUT_VERSION,
                prefix=keys.number_prefix,
                limit=terms.budget.amount,
                window_ms=terms.budget.window_ms,
                fingerprint=once.fingerprint if once else "",
                mark_ms=terms.mark_ms if once else 0,
                running_ms=RUNNING_MS,
                candidates=[value for pair in zip(digests, sealed, strict=True) for value in pair],
            )
        )
        match answer:
            case [b"registered", chosen, now_ms, lease_taken]:
                registration = Registration(
                    user_id=keys.user_id,
                    registration_id=registration_id,
                    address=draft.address,
                    number=candidates[chosen - 1],
                    locale=draft.locale,
                    created_ms=now_ms,
                )
                return Stored(registration, registration_id if lease_taken else None)
            case [b"taken"]:
                return None
            case [b"replayed", (b"sent" | b"pending") as delivery, created_ms]:
                return Registered(keys.user_id, Delivery(delivery.decode()), int(created_ms))
            case [b"limited", left_ms]:
                raise TooManyRegistrations("ADDRESS_LIMIT is used up", seconds(left_ms))
            case [b"running"]:
                raise RequestInProgress("The same request is still being answered", retry_after_s=1)
            case [b"reused"]:
                raise IdempotencyKeyReused("The Idempotency-Key belongs to another request")
            case _:  # the record or the mark is a newer process's
                raise told(NewerRecord())

    def keep_answer(
        self, registration: Registration, once: Once, delivery: Delivery | None, mark_ms: int
    ) -> None:
        """Every later request with this mark gets the same answer, for `mark_ms`. None: this one came to
        nothing, and the next one is carried out."""
        mark = keys_of(registration.user_id).idempotency(once.digest)
        if delivery is None:
            self._storage.command("DEL", mark)
            return
        value = f"{once.fingerprint}|{registration.registration_id}|{registration.created_ms}|{delivery}"
        self._storage.command("SET", mark, value, "XX", "PX", mark_ms)

    def verify(self, address: Address, number: str, budget: Budget) -> tuple[str, Draft]:
        """Consumes the registration and returns its user id and what was registered, at most once.

        The try is counted before anything is compared; where Redis refuses the count, every number gets
        StorageUnavailable. Raises VerificationFailed, TooManyAttempts, RecordUnreadable.
        """
        keys = self.keys(address)
        answer = self._storage.run(
            VerifyNumber(
                user=keys.user,
                outbox=keys.outbox,
                tries=keys.tries,
                id=keys.user_id,
                number=self._names.number(number),
                prefix=keys.number_prefix,
                limit=budget.amount,
                window_ms=budget.window_ms,
                most_in_a_row=WRONG_IN_A_ROW,
                newest=LAYOUT_VERSION,
                readable=self._records.readable,
            )
        )
        match answer:
            case [b"verified", sealed]:
                draft, _ = self._records.open(sealed, keys.user_id)
                return keys.user_id, draft
            case [b"limited", left_ms]:
                raise TooManyAttempts("VERIFY_LIMIT is used up", seconds(left_ms))
            case [b"foreign"]:
                raise told(SealBroken())
            case [b"newer"]:
                raise told(NewerRecord())
            case _:
                raise VerificationFailed("The number does not confirm this address")

    def find(self, user_id: str) -> UserRecord | None:
        """What is known of a user; None when there is nothing. Raises RecordUnreadable."""
        fields: dict[bytes, bytes] = self._storage.command("HGETALL", keys_of(user_id).user)
        try:
            return self._read(user_id, {name.decode(): value for name, value in fields.items()})
        except RecordUnreadable as error:
            raise told(error) from None

    def erase(self, user_id: str) -> bool:
        """Erases everything of the address but its two budgets; False when there was nothing.

        Raises NewerRecord.
        """
        keys = keys_of(user_id)
        call = EraseUser(keys.user, keys.outbox, id=user_id, prefix=keys.number_prefix)
        return checked(self._storage.run(call)) == "erased"

    def _read(self, user_id: str, fields: dict[str, bytes]) -> UserRecord | None:
        if not fields:
            return None
        try:
            if int(fields[Field.LAYOUT]) > LAYOUT_VERSION:
                raise NewerRecord
            draft, _ = self._records.open(b"".join(fields.get(name, b"") for name in SEALED), user_id)
            error = fields.get(Field.ERROR)
            return UserRecord(
                user_id=user_id,
                email=draft.address.email,
                delivery=Delivery(fields[Field.DELIVERY].decode()),
                created_ms=int(fields[Field.CREATED_MS]),
                attempts=int(fields[Field.ATTEMPTS]),
                expires_ms=int(fields[Field.EXPIRES_MS]) if Field.EXPIRES_MS in fields else None,
                mailed_ms=int(fields[Field.MAILED_MS]) if Field.MAILED_MS in fields else None,
                error=error.decode() if error else None,
            )
        except (KeyError, ValueError):
            raise damaged() from None


def seconds(left_ms: int) -> int:
    """Whole seconds to wait, at least one."""
    return max(1, -(-left_ms // 1000))
