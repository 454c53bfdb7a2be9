"""Handing in the number: it proves that the mailbox was read, and is answered with the token, once."""

from collections.abc import Callable
from typing import Any

from app.domain.address import Address
from app.domain.number import digits_of, is_well_formed
from app.domain.service import Service
from app.errors import MistypedNumber, VerificationFailed
from app.repositories.guard import Guard
from app.repositories.users import Handed, Users
from app.telemetry.metrics import Stage
from app.telemetry.traces import Traces

LONGEST_TYPED = 256
"""Characters of a number as it was typed or pasted. Each is looked up in Unicode's tables, and a body may
hold 64 KiB of them."""


class VerificationService:
    """Compares numbers with the live ones."""

    def __init__(
        self,
        users: Users,
        guard: Guard,
        digits: int,
        happened: Callable[[str, str, Stage], None],
    ) -> None:
        """`happened`: told how far a registration has come, by service and user."""
        self._users = users
        self._guard = guard
        self._digits = digits
        self._happened = happened

    def verify(self, service: Service, address: Address, typed: str, idempotency_key: str = "") -> Handed:
        """Consumes the registration of the address and returns what was registered.

        `typed`: the number as the person typed or pasted it (`digits_of`). The same key, address and number
        return the same again for two minutes. Raises MistypedNumber (costs no try), VerificationFailed,
        TooManyAttempts, StorageUnavailable.
        """
        number = digits_of(typed) if len(typed) <= LONGEST_TYPED else ""
        if not is_well_formed(number, self._digits):
            raise MistypedNumber("A wrong length or check digit")
        self._guard.check()
        handed = self._users.verify(service, address, number, idempotency_key)
        if handed.contents.test and not service.test:
            raise VerificationFailed  # it was shown instead of mailed, so it confirms nothing
        if not handed.again:
            self._happened(service.id, handed.user_id, Stage.VERIFIED)
        return handed


class TracedVerification(VerificationService):
    """The same, with each call a step of its request's trace. Made only where there are traces."""

    def __init__(self, traces: Traces, *parts: Any) -> None:
        super().__init__(*parts)
        self._traces = traces

    def verify(self, service: Service, address: Address, typed: str, idempotency_key: str = "") -> Handed:
        with self._traces.step("verification"):
            return super().verify(service, address, typed, idempotency_key)
