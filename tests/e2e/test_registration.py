"""The main job, from the outside: gunicorn, a real Valkey, a real mail server."""

import redis

from tests.support.scan import contradictions, kinds
from tests.support.servers import Gunicorn, MailServer


def test_a_registration_is_stored_and_its_number_arrives_by_mail(
    service: Gunicorn, mail_server: MailServer, store: redis.Redis
) -> None:
    """The nine steps of the diagram, in English and in Spanish."""
    for locale, word in (("en", "Your identification number"), ("es", "Su número de identificación")):
        address = f"ada.{locale}@example.com"
        answer = service.register(address, locale=locale)
        assert answer.status_code == 201, answer.text
        assert answer.json()["delivery"] == "sent"
        (mail,) = mail_server.box.to(address)
        assert word in mail.part("plain")
        assert mail.number not in answer.text
        assert mail.number not in service.log
    assert kinds(store)["user"] == kinds(store)["number"] == 2
    assert kinds(store)["outbox"] == 0
    assert contradictions(store) == []
