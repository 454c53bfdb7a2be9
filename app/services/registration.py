"""The persistence service of the diagram: gives an address its one identification number."""

import time

from app.domain.number import NumberGenerator
from app.domain.registration import Delivery, Draft, Registration, Replayed, Stored, UserRecord
from app.errors import NumberSpaceExhausted, StorageUnavailable, UserNotFound
from app.repositories.guard import Guard
from app.repositories.users import Once, Terms, Users
from app.services.messaging import SendPlan
from app.telemetry.metrics import Metrics

FIRST_CANDIDATES = 4
"""At 90 % full four candidates fail in 66 of 100 cases, and only then the next call brings many."""

ALL_FREE = 100
"""After so many registrations in a row whose first number was free, one candidate is enough: each that is not
needed costs a seal, two digests and room on the wire."""

MORE_CANDIDATES = 128
MAX_CALLS = 32
"""4 + 31 x 128 = 3,972 candidates: at 99.9 % full they fail in 2 of 100 cases."""


class RegistrationService:
    """Registers addresses, tells of them and erases them."""

    def __init__(
        self,
        users: Users,
        guard: Guard,
        numbers: NumberGenerator,
        terms: Terms,
        metrics: Metrics | None = None,
    ) -> None:
        self._users = users
        self._guard = guard
        self._numbers = numbers
        self._terms = terms
        self._metrics = metrics or Metrics()
        self._free_in_a_row = 0

    def register(self, draft: Draft, plan: SendPlan, once: Once | None = None) -> Stored | Replayed:
        """Gives the address a unique number and replaces what it had: all of it, or nothing at all.

        `once`: the request is carried out once; a repetition gives Replayed. Raises NumberSpaceExhausted,
        StorageUnavailable, TooManyRegistrations, RequestInProgress, IdempotencyKeyReused.
        """
        self._guard.check()
        keys = self._users.keys(draft.address)
        started, tried = time.perf_counter(), 0
        count = 1 if self._free_in_a_row >= ALL_FREE else FIRST_CANDIDATES
        for _ in range(MAX_CALLS):
            candidates = self._numbers.draw_distinct(keys.shard, count)
            stored = self._users.register(
                keys,
                draft,
                candidates,
                self._terms,
                lease_ms=plan.lease_ms,
                once=once,
            )
            if isinstance(stored, Stored):
                tried += candidates.index(stored.registration.number) + 1
                self._free_in_a_row = self._free_in_a_row + 1 if tried == 1 else 0
                self._metrics.registered(tried, time.perf_counter() - started)
            if stored is not None:
                return stored
            tried += len(candidates)
            self._free_in_a_row, count = 0, MORE_CANDIDATES
        self._metrics.exhausted(tried)
        raise NumberSpaceExhausted("No free number was found")

    def once(self, client: str, draft: Draft, idempotency_key: str) -> Once | None:
        """The mark of a request that a client named with an Idempotency-Key; None without one."""
        return self._users.once(client, draft, idempotency_key) if idempotency_key else None

    def answered(self, registration: Registration, once: Once, delivery: Delivery | None) -> None:
        """Keeps the answer for repetitions; None: it came to nothing, so a repetition starts anew.

        A Redis that fails now changes no answer: a repetition then gets it from the record.
        """
        try:
            if delivery is None:
                self._users.forget_answer(registration, once)
            else:
                self._users.remember_answer(registration, once, delivery, self._terms.mark_ms)
        except StorageUnavailable:
            return

    def find(self, user_id: str) -> UserRecord:
        """Raises UserNotFound, StorageUnavailable."""
        self._guard.check()
        found = self._users.find(user_id)
        if found is None:
            raise UserNotFound("No registration has this id")
        return found

    def erase(self, user_id: str) -> None:
        """Erases everything of the address but its two budgets. Raises UserNotFound, StorageUnavailable."""
        self._guard.check()
        if not self._users.erase(user_id):
            raise UserNotFound("No registration has this id")
