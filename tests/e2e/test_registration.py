"""The main job, from the outside: gunicorn, a real Valkey, a real mail server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.records import Records
from tests.support.scan import contradictions, kinds
from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]
) -> Iterator[Gunicorn]:
    """Two workers, as on a machine with two cores."""
    settings = shared_environment | {"WEB_CONCURRENCY": "2"}
    with gunicorn(tmp_path_factory.mktemp("service"), settings) as server:
        yield server


@pytest.fixture
def mail_server(mailbox: MailServer) -> MailServer:
    """The shared one, emptied."""
    mailbox.box.mails.clear()
    return mailbox


def test_a_registration_is_stored_and_its_number_arrives_by_mail(
    service: Gunicorn, mail_server: MailServer, store: redis.Redis
) -> None:
    """The nine steps of the diagram, in English and in Spanish."""
    for locale, word in (("en", "Confirm your email address"), ("es", "Confirme su correo electrónico")):
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


def test_registering_again_replaces_the_number_and_mails_the_new_one(
    service: Gunicorn, mail_server: MailServer, store: redis.Redis
) -> None:
    """Steps 4 to 6: the old data goes, the same person stays the same user."""
    first = service.register("ada@example.com", token="first")
    second = service.register("ADA@example.com", token="second")
    assert first.json()["id"] == second.json()["id"]
    assert first.headers["Location"] == second.headers["Location"] == f"/api/users/{first.json()['id']}"
    stored = Records(store).of("ada@example.com")
    assert stored is not None
    assert stored.token == "second"
    assert mail_server.box.mails[-1].recipient == "ADA@example.com"
    assert mail_server.box.mails[-1].number == stored.number
    assert mail_server.box.mails[0].number != stored.number
    assert kinds(store)["user"] == kinds(store)["number"] == 1


def test_a_caller_may_go_on_before_the_mail_is_sent(
    service: Gunicorn, mail_server: MailServer, store: redis.Redis
) -> None:
    """`Prefer: respond-async` (RFC 7240) among other preferences; the mail comes all the same."""
    answer = service.register("ada@example.com", headers={"Prefer": "wait=5, respond-async"})
    assert answer.status_code == 202
    assert answer.json()["delivery"] == "pending"
    assert answer.headers["Preference-Applied"] == "respond-async"
    mail_server.box.wait_for("ada@example.com")


@pytest.fixture
def standard_mail_server() -> Iterator[MailServer]:
    """A mail server on the standard port, where this user may listen there; else on another."""
    try:
        server = MailServer(host="127.0.0.2", port=25)
    except OSError:
        server = MailServer(host="127.0.0.2")
    yield server
    server.stop()


def test_two_settings_are_enough_for_plain_gunicorn(
    tmp_path: Path, valkey_server: Valkey, store: redis.Redis, standard_mail_server: MailServer
) -> None:
    """`REDIS_URL=… MAIL_SERVER=… gunicorn wsgi:app` without any configuration: one sync worker."""
    settings = {"REDIS_URL": valkey_server.url, "MAIL_SERVER": standard_mail_server.host}
    if standard_mail_server.port != 25:
        settings["MAIL_PORT"] = str(standard_mail_server.port)
    with gunicorn(tmp_path, settings, own_configuration=False) as service:
        for address in ("ada@example.com", "bob@example.com"):
            answer = service.register(address)
            assert answer.status_code == 201, answer.text
            (mail,) = standard_mail_server.box.to(address)
            assert mail.number == Records(store).number_of(address)
        assert "Using worker: sync" in service.log
    assert contradictions(store) == []
