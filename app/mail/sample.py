"""A registration that nobody made, for looking at mails. Imports of the app only `domain`."""

import time
from typing import Final

from app.domain.address import Address
from app.domain.registration import Registration
from app.domain.service import Service

NUMBER: Final = "4821093753"


def sample(service: Service, locale: str) -> Registration:
    """A registration of this moment by the service. `locale`: a language tag, or empty for none."""
    return Registration(
        user_id="a" * 26,
        registration_id="0123456789abcdef0123",
        address=Address.known("ada@example.com"),
        number=NUMBER,
        locale=locale,
        asked_for_ms=int(time.time() * 1000),
        service=service.id,
        left_ms=service.ttl_ms or None,
    )
