"""The records of users: one live registration for each address."""

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from app.domain.address import Address
from app.domain.registration import Contents, Delivery, Draft, Registered, Registration, Stored, UserRecord
from app.domain.service import NO_LIMIT, Budget, Service
from app.errors import (
    AddressRefused,
    CedulaError,
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
from app.repositories.records import LAYOUT_VERSION, Sealer, checked, damaged, told
from app.repositories.scripts import EraseUser, KeepAnswer, Register, ResendMail, VerifyNumber
from app.storage.storage import Storage

DAY_MS = 86_400_000


def fresh_token() -> str:
    """A name that nobody else draws: 16 characters, 64 bits."""
    return secrets.token_hex(8)


class Once(NamedTuple):
    """A request that must be carried out once (Idempotency-Key): its mark, and what makes it itself."""

    digest: str
    fingerprint: str


class Handed(NamedTuple):
    """What was registered, for the service that handed in its number. `again`: this request got it before."""

    user_id: str
    contents: Contents
    again: bool = False


class Users:
    """The records in Redis. Every method raises StorageUnavailable, having changed nothing or all."""

    def __init__(self, storage: Storage, names: Names, sealer: Sealer, mark_ms: int = DAY_MS) -> None:
        """`mark_ms`: how long a registration is remembered by its Idempotency-Key."""
        self._storage = storage
        self._names = names
        self._sealer = sealer
        self._mark_ms = mark_ms

    def keys(self, service: Service, address: Address) -> UserKeys:
        return self._names.user(service.id, address)

    def once(self, client: str, draft: Draft, idempotency_key: str) -> Once:
        """The mark of one Idempotency-Key of one client for one address."""
        return Once(
            self._names.request(client, self.keys(draft.service, draft.address).user_id, idempotency_key),
            self._names.fingerprint(draft.token, draft.locale),
        )

    def register(
        self,
        keys: UserKeys,
        draft: Draft,
        candidates: Sequence[str],
        *,
        lease_ms: int,
        once: Once | None = None,
    ) -> Stored | Registered | None:
        """Registers the address with the first candidate that is free, and replaces what it had.

        One round trip, one decision (`register.lua`). Registered: this request was carried out before
        (`once`). None: every candidate is taken, and nothing has changed. Raises TooManyRegistrations,
        AddressRefused, RequestInProgress, IdempotencyKeyReused, NewerRecord.
        """
        service = draft.service
        mailbox_limit = of_mailbox(service, test=service.test)
        registration_id = fresh_token()  # nobody else draws it, so it names the lease, too
        digests = [self._names.number(number) for number in candidates]
        sealed = [self._sealer.seal_record(draft, number, keys.user_id) for number in candidates]
        answer = self._storage.run(
            Register(
                *keys.mail,
                *keys.announcing,
                *keys.end,
                sends=keys.sends,
                mailbox=keys.mailbox(self._names.mailbox(draft.address)),
                mark=keys.idempotency(once.digest if once else "none"),
                suppressed=keys.suppressed,
                numbers=[keys.number_prefix + digest for digest in digests],
                id=keys.user_id,
                registration=registration_id,
                lease_ms=lease_ms,
                life_ms=service.ttl_ms,
                prefix=keys.number_prefix,
                limit=service.address_limit.amount,
                window_ms=service.address_limit.window_ms,
                mailbox_limit=mailbox_limit.amount,
                mailbox_window_ms=mailbox_limit.window_ms,
                fingerprint=once.fingerprint if once else "",
                mark_ms=self._mark_ms if once else 0,
                told=service.id if service.events else "",
                test=int(service.test),
                candidates=[value for pair in zip(digests, sealed, strict=True) for value in pair],
            )
        )
        match answer:
            case [b"registered", chosen, now_ms, lease_taken]:
                registration = Registration(
                    user_id=keys.user_id,
                    registration_id=registration_id,
                    address=draft.address,
                    number=candidates[chosen],
                    locale=draft.locale,
                    asked_for_ms=now_ms,
                    service=service.id,
                    test=service.test,
                    left_ms=service.ttl_ms or None,
                )
                return Stored(registration, registration_id if lease_taken else None)
            case [b"taken"]:
                return None
            case [b"replayed", (b"sent" | b"pending") as delivery, created_ms, expires_ms]:
                told_as = Delivery(delivery.decode())
                return Registered(keys.user_id, told_as, int(created_ms), int(expires_ms) or None)
            case [b"running"]:
                raise RequestInProgress("The same request is still being answered", retry_after_s=1)
            case [b"reused"]:
                raise IdempotencyKeyReused("The Idempotency-Key belongs to another request")
            case _:
                raise no_mail(answer)

    def resend(self, record: UserRecord, service: Service, *, lease_ms: int) -> Stored | None:
        """Lets the live number be mailed again. None: this registration is no longer live, and nothing has
        changed. Raises TooManyRegistrations, AddressRefused, NewerRecord."""
        keys, contents = keys_of(record.user_id), record.contents
        mailbox_limit = of_mailbox(service, test=contents.test)
        owner = fresh_token()
        answer = self._storage.run(
            ResendMail(
                *keys.mail,
                sends=keys.sends,
                mailbox=keys.mailbox(self._names.mailbox(contents.address)),
                suppressed=keys.suppressed,
                id=record.user_id,
                registration=record.registration_id,
                owner=owner,
                lease_ms=lease_ms,
                limit=service.address_limit.amount,
                window_ms=service.address_limit.window_ms,
                mailbox_limit=mailbox_limit.amount,
                mailbox_window_ms=mailbox_limit.window_ms,
            )
        )
        match answer:
            case [b"resent", now_ms, lease_taken, resends, left_ms]:
                record = record._replace(resends=resends)
                registration = record.registration(now_ms, left_ms if left_ms >= 0 else None)
                return Stored(registration, owner if lease_taken else None)
            case [b"gone"]:
                return None
            case _:
                raise no_mail(answer)

    def keep_answer(self, once: Once, registration: Registration, answer: Registered | None) -> None:
        """Every later request with this mark gets the same answer. None: this one came to nothing, and the
        next one is carried out. Changes nothing where the mark is another request's by now."""
        mark = keys_of(registration.user_id).idempotency(once.digest)
        answered = str(answer.delivery) if answer else ""
        self._storage.run(KeepAnswer(mark, registration.registration_id, answered, self._mark_ms))

    def verify(self, service: Service, address: Address, number: str, idempotency_key: str = "") -> Handed:
        """Consumes the registration and returns what was registered, at most once; for REPLAY_MS again where
        the same key, address and number are handed in.

        The try is counted before anything is compared; where Redis refuses the count, every number gets
        StorageUnavailable. Raises VerificationFailed, TooManyAttempts, RecordUnreadable.
        """
        keys, budget = self.keys(service, address), service.verify_limit
        named = self._names.verification(keys.user_id, idempotency_key) if idempotency_key else ""
        answer = self._storage.run(
            VerifyNumber(
                keys.user,
                keys.outbox,
                keys.tries,
                keys.verified,
                *keys.announcing,
                *keys.end,
                id=keys.user_id,
                number=self._names.number(number),
                prefix=keys.number_prefix,
                limit=budget.amount,
                window_ms=budget.window_ms,
                readable=self._sealer.readable,
                fingerprint=named,
                test=int(service.test),
            )
        )
        match answer:
            case [b"verified" | b"replayed" as how, sealed]:
                contents = self._sealer.open_record(sealed, keys.user_id)
                return Handed(keys.user_id, contents, again=how == b"replayed")
            case [b"wrong", tries_left]:
                raise VerificationFailed(tries_left if budget.amount else None)
            case [b"limited", left_ms]:
                raise TooManyAttempts("VERIFY_LIMIT is used up", seconds(left_ms))
            case [b"foreign"]:
                raise told(SealBroken())
            case _:
                raise told(NewerRecord())

    def find(self, user_id: str) -> UserRecord | None:
        """What is known of a user; None when there is nothing. Raises RecordUnreadable."""
        fields: dict[bytes, bytes] = self._storage.command("HGETALL", keys_of(user_id).user)
        try:
            return self._read(user_id, {name.decode(): value for name, value in fields.items()})
        except RecordUnreadable as error:
            raise told(error) from None

    def handed_out(self, user_id: str) -> Contents | None:
        """What was handed out for the last number and may still be asked for again (REPLAY_MS). Raises
        RecordUnreadable."""
        kept: bytes | None = self._storage.command("GET", keys_of(user_id).verified)
        if not kept:
            return None
        return self._sealer.open_record(kept.split(b"|", 3)[3], user_id)  # verify_number.lua wrote it

    def erase(self, user_id: str) -> bool:
        """Erases everything of the user but budgets; False when there was nothing.

        Raises NewerRecord.
        """
        keys = keys_of(user_id)
        call = EraseUser(
            keys.user, keys.outbox, keys.verified, *keys.end, id=user_id, prefix=keys.number_prefix
        )
        return checked(self._storage.run(call)) == "erased"

    def _read(self, user_id: str, fields: dict[str, bytes]) -> UserRecord | None:
        if not fields:
            return None
        try:
            if int(fields[Field.LAYOUT]) > LAYOUT_VERSION:
                raise NewerRecord
            contents = self._sealer.open_record(b"".join(fields.get(name, b"") for name in SEALED), user_id)
            error = fields.get(Field.ERROR)
            return UserRecord(
                user_id=user_id,
                registration_id=fields[Field.REGISTRATION].decode(),
                contents=contents,
                delivery=Delivery(fields[Field.DELIVERY].decode()),
                created_ms=int(fields[Field.CREATED_MS]),
                attempts=int(fields[Field.ATTEMPTS]),
                expires_ms=int(fields[Field.EXPIRES_MS]) if Field.EXPIRES_MS in fields else None,
                mailed_ms=int(fields[Field.MAILED_MS]) if Field.MAILED_MS in fields else None,
                error=error.decode() if error else None,
                resends=int(fields.get(Field.RESENDS, 0)),
                reported_ms=int(fields[Field.REPORTED_MS]) if Field.REPORTED_MS in fields else None,
            )
        except (KeyError, ValueError):
            raise damaged() from None


def of_mailbox(service: Service, *, test: bool) -> Budget:
    """How many mails a mailbox may get: `test` registrations, of which no mail goes out, have no limit."""
    return NO_LIMIT if test else service.mailbox_limit


def no_mail(answer: list[Any]) -> CedulaError:
    """Why a script lets nothing be mailed to an address."""
    match answer:
        case [b"limited", left_ms]:
            return TooManyRegistrations("ADDRESS_LIMIT or MAILBOX_LIMIT is used up", seconds(left_ms))
        case [b"suppressed"]:
            return AddressRefused("A mail to this address came back, or was called unwanted, not long ago")
        case _:  # the record or the mark is a newer process's
            return told(NewerRecord())


def seconds(left_ms: int) -> int:
    """Whole seconds to wait, at least one."""
    return max(1, -(-left_ms // 1000))
