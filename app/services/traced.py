"""The services that requests call, each call a step of its request's trace. Made only where there are traces,
so that without them no request pays for it.
"""

from typing import Any

from app.domain.address import Address
from app.domain.registration import Cause, Draft, Registered, UserRecord
from app.domain.service import Service
from app.repositories.users import Handed
from app.services.registration import RegistrationService
from app.services.verification import VerificationService
from app.telemetry.traces import Traces


class TracedRegistration(RegistrationService):
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


class TracedVerification(VerificationService):
    def __init__(self, traces: Traces, *parts: Any) -> None:
        super().__init__(*parts)
        self._traces = traces

    def verify(self, service: Service, address: Address, typed: str, idempotency_key: str = "") -> Handed:
        with self._traces.step("verification"):
            return super().verify(service, address, typed, idempotency_key)
