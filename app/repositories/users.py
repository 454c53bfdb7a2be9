"""The records of users: one live registration for each address."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import redis

from app.addresses import Address
from app.registrations import Registration
from app.repositories.keys import Names, UserKeys
from app.repositories.sealing import Sealer
from app.repositories.store import load_script, run

LAYOUT_VERSION = 1
"""Of the record's fields and of what is sealed in it. A process leaves a newer record to a newer process."""


def fresh_token() -> str:
    """A name that nobody else draws: 16 characters, 80 bits."""
    return secrets.token_hex(10)


@dataclass(frozen=True, slots=True)
class Draft:
    """A registration before it has a number."""

    address: Address
    token: str
    locale: str


@dataclass(frozen=True, slots=True)
class Stored:
    """What a registration came to. `owner` names the lease, None where another sender holds it."""

    registration: Registration
    owner: str | None


class Users:
    """Registers addresses in Redis."""

    def __init__(self, client: redis.Redis, names: Names, sealer: Sealer) -> None:
        self._names = names
        self._records = RecordSeal(sealer)
        self._register = load_script(client, "register")

    def keys(self, address: Address) -> UserKeys:
        return self._names.user(address.identity)

    def register(
        self,
        keys: UserKeys,
        draft: Draft,
        candidates: Sequence[str],
        *,
        lease_ms: int,
        wait_ms: int,
        life_ms: int,
    ) -> Stored | None:
        """Registers the address with the first candidate that is free, and replaces what it had.

        One round trip, one decision (`register.lua`). None when every candidate is taken; then nothing
        has changed. Raises StorageUnavailable; the registration is then whole or not there at all.
        """
        registration_id, owner = fresh_token(), fresh_token()
        digests = [self._names.number(number) for number in candidates]
        args: list[str | bytes | int] = [
            keys.user_id,
            registration_id,
            owner,
            lease_ms,
            wait_ms,
            life_ms,
            LAYOUT_VERSION,
            keys.number_prefix,
        ]
        for number, digest in zip(candidates, digests, strict=True):
            args += [digest, self._records.seal(draft, number, keys.user_id)]
        numbers = [keys.number_prefix + digest for digest in digests]
        answer = run(self._register, [keys.user, keys.sender, keys.outbox, *numbers], args)
        if answer[0] == b"taken":
            return None
        _, chosen, now_ms, lease_taken = answer
        registration = Registration(
            user_id=keys.user_id,
            registration_id=registration_id,
            address=draft.address,
            number=candidates[chosen - 1],
            locale=draft.locale,
            created_ms=now_ms,
        )
        return Stored(registration, owner if lease_taken else None)


class RecordSeal:
    """What is sealed in a record: address, token, number and locale, as one JSON array."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def seal(self, draft: Draft, number: str, user_id: str) -> bytes:
        text = json.dumps(
            [draft.address.email, draft.token, number, draft.locale],
            ensure_ascii=False,
            separators=(",", ":"),
        )
        return self._sealer.seal(text.encode(), user_id)

    def open(self, sealed: bytes, user_id: str) -> tuple[Draft, str]:
        """The draft and its number. Raises SealBroken."""
        email, token, number, locale = json.loads(self._sealer.open(sealed, user_id))
        return Draft(Address.parse(email), token, locale), number
