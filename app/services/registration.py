"""The persistence service of the diagram in docs/architecture.md: gives an address its one number."""

import time
from contextlib import suppress
from typing import Any

from app.domain.number import NumberGenerator
from app.domain.registration import Cause, Draft, Registered, Registration, Stored, UserRecord
from app.domain.service import Service
from app.errors import AddressRefused, NumberSpaceExhausted, StorageUnavailable, UserNotFound
from app.repositories.guard import Guard
from app.repositories.users import Once, Users
from app.services.messaging import MessagingService
from app.telemetry.metrics import Metrics
from app.telemetry.traces import Traces

FIRST_CANDIDATES = 4
"""At 90 % full four candidates fail in 66 of 100 cases; only then the next call brings many."""

ALL_FREE = 100
"""After so many registrations in a row whose first number was free, one candidate is enough: each further one
costs a seal, two digests and room on the wire."""

RESEND_TRIES = 4
"""An address may be registered again between look-up and resend; the new number is then mailed again."""

MORE_CANDIDATES = 128
MAX_CALLS = 32
"""4 + 31 x 128 = 3,972 candidates: at 99.9 % full they fail in 2 of 100 cases."""


class RegistrationService:
    """Registers addresses, mails their numbers again, tells of them and erases them."""

    def __init__(
        self,
        users: Users,
        guard: Guard,
        numbers: NumberGenerator,
        messaging: MessagingService,
        metrics: Metrics,
    ) -> None:
        self._users = users
        self._guard = guard
        self._numbers = numbers
        self._messaging = messaging
        self._metrics = metrics
        self._free_in_a_row = 0

    def register(
        self, draft: Draft, cause: Cause, *, awaited: bool = True, idempotency_key: str = ""
    ) -> Registered:
        """Gives the address a unique number in place of what it had, and mails it there.

        `awaited`: the request waits for the mail, up to MAIL_TIMEOUT. The same `idempotency_key` of the same
        caller gets the same answer again. Raises what `store` and `MessagingService.send` raise.
        """
        once = self._users.once(cause.caller, draft, idempotency_key) if idempotency_key else None
        plan = self._messaging.plan(awaited=awaited, test=draft.service.test)
        stored = self.store(draft, plan.lease_ms, once)
        if isinstance(stored, Registered):
            return stored
        registration = stored.registration
        try:
            delivery = self._messaging.send(stored, plan, cause)
        except (AddressRefused, StorageUnavailable):
            self._keep_answer(once, registration, None)
            raise
        created_ms, ttl_ms = registration.asked_for_ms, draft.service.ttl_ms
        answer = Registered(
            registration.user_id, delivery, created_ms, created_ms + ttl_ms if ttl_ms else None
        )
        self._keep_answer(once, registration, answer)
        return answer

    def resend(self, service: Service, user_id: str, cause: Cause, *, awaited: bool = True) -> UserRecord:
        """Mails the live number again, and returns the record with what came of it.

        Raises UserNotFound, TooManyRegistrations, AddressRefused, StorageUnavailable.
        """
        for _ in range(RESEND_TRIES):
            record = self.find(user_id, service)
            if record.contents.test != service.test:  # it stays test, or real, whatever the service is now
                raise UserNotFound("It was registered when the service was of the other kind")
            plan = self._messaging.plan(awaited=awaited, test=record.contents.test)
            stored = self._users.resend(record, service, lease_ms=plan.lease_ms)
            if stored is not None:
                break
        else:
            raise UserNotFound("It was replaced again and again")
        delivery = self._messaging.send(stored, plan, cause)
        with suppress(StorageUnavailable):
            now = self._users.find(user_id)
            if now is not None and now.registration_id == record.registration_id:  # not replaced meanwhile
                record = now
        return record._replace(delivery=delivery)

    def store(self, draft: Draft, lease_ms: int, once: Once | None = None) -> Stored | Registered:
        """Gives the address a unique number and replaces what it had: all of it, or nothing at all.

        `lease_ms`: of the lease to take on the address, 0 = none. `once`: a repetition of this request gives
        Registered. Raises NumberSpaceExhausted, StorageUnavailable, TooManyRegistrations, RequestInProgress,
        IdempotencyKeyReused.
        """
        self._guard.check()
        keys = self._users.keys(draft.service, draft.address)
        started, tried = time.perf_counter(), 0
        count = 1 if self._free_in_a_row >= ALL_FREE else FIRST_CANDIDATES
        for _ in range(MAX_CALLS):
            candidates = self._numbers.draw_distinct(keys.shard, count)
            stored = self._users.register(
                keys,
                draft,
                candidates,
                lease_ms=lease_ms,
                once=once,
            )
            if isinstance(stored, Stored):
                tried += candidates.index(stored.registration.number) + 1
                self._free_in_a_row = self._free_in_a_row + 1 if tried == 1 else 0
                self._metrics.registered(draft.service.id, tried, time.perf_counter() - started)
            if stored is not None:
                return stored
            tried += len(candidates)
            self._free_in_a_row, count = 0, MORE_CANDIDATES
        self._metrics.exhausted(tried)
        raise NumberSpaceExhausted("No free number was found")

    def find(self, user_id: str, service: Service | None = None) -> UserRecord:
        """A registration of this service; None: of any service, for the operator.

        Raises UserNotFound, StorageUnavailable.
        """
        self._guard.check()
        found = self._users.find(user_id)
        if found is None or (service is not None and found.contents.service != service.id):
            raise UserNotFound("No registration of this service has this id")
        return found

    def mailed(self, service: Service, user_id: str) -> Registration:
        """The registration of a test service whose mail was sent, as it was then. Raises UserNotFound."""
        record = self.find(user_id, service)
        mailed = record.as_mailed() if service.test and record.contents.test else None
        if mailed is None:
            raise UserNotFound("There is no mail to be shown")
        return mailed

    def erase(self, user_id: str, service: Service | None = None) -> None:
        """Erases everything of a user but budgets. `service`: as for `find`; None also erases a record that
        does not open and hence names no service. Raises UserNotFound, StorageUnavailable."""
        self._guard.check()
        if not self._is_of(service, user_id) or not self._users.erase(user_id):
            raise UserNotFound("There is no registration, or not any more")

    def _is_of(self, service: Service | None, user_id: str) -> bool:
        """Whether a user's registration, or else what was handed out, is the service's."""
        if service is None:
            return True
        record = self._users.find(user_id)
        contents = record.contents if record else self._users.handed_out(user_id)
        return contents is not None and contents.service == service.id

    def _keep_answer(self, once: Once | None, registration: Registration, answer: Registered | None) -> None:
        """Keeps the answer for repetitions; None: the request failed, so a repetition starts anew.

        If Redis fails now, a repetition gets its answer from the record.
        """
        if once is not None:
            with suppress(StorageUnavailable):
                self._users.keep_answer(once, registration, answer)


class TracedRegistration(RegistrationService):
    """The same, with each call a step of its request's trace. Made only where there are traces."""

    def __init__(self, traces: Traces, *parts: Any) -> None:
        super().__init__(*parts)
        self._traces = traces

    def register(
        self, draft: Draft, cause: Cause, *, awaited: bool = True, idempotency_key: str = ""
    ) -> Registered:
        with self._traces.step("registration"):
            return super().register(draft, cause, awaited=awaited, idempotency_key=idempotency_key)

    def resend(self, service: Service, user_id: str, cause: Cause, *, awaited: bool = True) -> UserRecord:
        with self._traces.step("resend"):
            return super().resend(service, user_id, cause, awaited=awaited)
