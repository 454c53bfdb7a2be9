"""Events, and the secrets that sign them."""

import base64

from app.domain.registration import Event, EventKind

SECRET = f"whsec_{base64.b64encode(b'an old secret of 24 byte').decode()}"
NEXT_SECRET = f"whsec_{base64.b64encode(b'a secret of 32 bytes, the newer!').decode()}"


def event(number: int = 0, kind: EventKind = EventKind.SENT) -> Event:
    return Event(f"event-{number}", kind, 1_790_000_000_123, "u" * 26, 1_789_999_000_007)
