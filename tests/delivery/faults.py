"""What the tests of faulty mail servers share."""

import redis

from tests.delivery.conftest import Service
from tests.support.scan import contradictions, kinds
from tests.support.smtp import ScriptedSmtp

ADA = "ada.fault@example.com"

PATIENT = {"mail_timeout_s": 20.0}
"""So an answer that waited for the time-out is told from one that did not, however busy the machine."""


LOGIN = {"mail_username": "cedula", "mail_password": "wrong"}


def assert_arrives(service: Service, smtp: ScriptedSmtp, store: redis.Redis, address: str = ADA) -> None:
    """One mail, with the number that is live; nothing stays in the outbox."""
    user = service.wait_for_delivery(address, "sent")
    assert "mail_error" not in user
    (mail,) = smtp.to(address)
    assert mail.number == service.records.number_of(address)
    assert kinds(store)["outbox"] == kinds(store)["sender"] == 0
    assert contradictions(store) == []
