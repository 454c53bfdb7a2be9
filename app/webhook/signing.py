"""An event as a receiver gets it, by the Standard Webhooks convention: https://www.standardwebhooks.com."""

from datetime import UTC, datetime
from typing import NamedTuple

import orjson
from standardwebhooks import Webhook

from app.domain.registration import Event, rfc3339


class Message(NamedTuple):
    """What is posted."""

    headers: dict[str, str]
    body: bytes


def signed(event: Event, secrets: tuple[str, ...], now_s: float) -> Message:
    """An event, signed with each of the secrets. `now_s`: Unix time of the attempt, of which receivers
    refuse old ones."""
    body = orjson.dumps(
        {
            "type": event.kind.type,
            "timestamp": rfc3339(event.at_ms),
            "data": {"id": event.user_id, "created_at": rfc3339(event.created_ms)},
        }
    )
    second = int(now_s)
    moment = datetime.fromtimestamp(second, UTC)
    signatures = (Webhook(secret).sign(event.event_id, moment, body.decode()) for secret in secrets)
    headers = {
        "content-type": "application/json",
        "user-agent": "Cedula",
        "webhook-id": event.event_id,
        "webhook-timestamp": str(second),
        "webhook-signature": " ".join(signatures),
    }
    return Message(headers, body)
