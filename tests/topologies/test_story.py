"""The life of a registration through gunicorn, wherever it lies; always with the documented ACL user."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.problems import assert_problem
from tests.support.records import Records
from tests.support.scan import contradictions, kinds
from tests.support.servers import Gunicorn, MailServer, gunicorn
from tests.support.waiting import wait_until
from tests.topologies.places import Place

CLIENT_LIMIT = 12
MAIL_TIMEOUT_S = 1
"""Leases of 7 s: what a dead process owes is delivered after at most so long."""
REGISTERED = (201, 202)
"""So short a MAIL_TIMEOUT can end before the mail is accepted, on a busy machine."""


@pytest.fixture
def settings(place: Place, mail_server: MailServer) -> dict[str, str]:
    return {
        "REDIS_URL": place.url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(mail_server.port),
        "MAIL_DEFAULT_SENDER": "no-reply@example.com",
        "MAIL_TIMEOUT": str(MAIL_TIMEOUT_S),
        "SECRET_KEY": "s" * 40,
        "ADDRESS_LIMIT": "3/hour",
        "VERIFY_LIMIT": "2/hour",
        "CLIENT_LIMIT": f"{CLIENT_LIMIT}/hour",
        "TRUSTED_PROXIES": "1",
        "WEB_CONCURRENCY": "2",
    }


class Caller:
    """Calls from an IP address of its own, so that each test has its own CLIENT_LIMIT."""

    def __init__(self, service: Gunicorn, mail: MailServer, ip: str) -> None:
        self._service, self._mail = service, mail
        self._headers = {"X-Forwarded-For": ip}

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._service.http.request(
            method, self._service.url + path, json=body, headers={**self._headers, **names}, timeout=30
        )

    def register(self, email: str, token: str = "t0ken", **headers: str) -> requests.Response:
        return self.call("POST", "/api/users", {"email": email, "token": token}, **headers)

    def verify(self, email: str, number: str) -> requests.Response:
        return self.call("POST", "/api/users/verify", {"email": email, "number": number})

    def number(self, email: str, mails: int = 1) -> str:
        return self._mail.box.wait_for(email, mails)[-1].number


@pytest.fixture
def service(tmp_path: Path, settings: dict[str, str]) -> Iterator[Gunicorn]:
    with gunicorn(tmp_path, settings) as found:
        yield found


@pytest.mark.timeout(120)
def test_the_whole_story(
    place: Place, service: Gunicorn, mail_server: MailServer, settings: dict[str, str], tmp_path: Path
) -> None:
    """One test, because starting the servers costs more than telling the story."""
    caller = Caller(service, mail_server, "192.0.2.1")
    registered_replaced_and_used_once(caller, place)
    erased(Caller(service, mail_server, "192.0.2.2"))
    asked_twice_and_done_once(Caller(service, mail_server, "192.0.2.3"), place)
    budgets_are_kept(Caller(service, mail_server, "192.0.2.4"))
    clients_are_counted(Caller(service, mail_server, "192.0.2.5"))
    wait_until(lambda: kinds(place.client)["outbox"] == 0, 30, "nothing is owed")
    assert contradictions(place.client) == []
    owed_by_the_dead(place, service, mail_server, settings, tmp_path)
    assert contradictions(place.client) == []


def registered_replaced_and_used_once(caller: Caller, place: Place) -> None:
    """The second number replaces the first; the token comes once."""
    first = caller.register("ada@example.com", "first")
    assert first.status_code in REGISTERED, first.text
    number = caller.number("ada@example.com")
    assert caller.register("ada@example.com", "second").status_code in REGISTERED
    newer = caller.number("ada@example.com", 2)
    assert_problem(caller.verify("ada@example.com", number), 403, "verification-failed")
    wait_until(lambda: kinds(place.client)["outbox"] == 0, 30, "nothing is owed")
    assert caller.call("GET", first.headers["Location"]).json()["delivery"] == "sent"
    assert caller.verify("ada@example.com", newer).json()["token"] == "second"
    assert_problem(caller.verify("ada@example.com", newer), 403, "verification-failed")
    assert_problem(caller.call("GET", first.headers["Location"]), 404, "not-found")


def erased(caller: Caller) -> None:
    """Nothing is left to look up or to hand in."""
    where = caller.register("bob@example.com").headers["Location"]
    assert caller.call("DELETE", where).status_code == 204
    assert_problem(caller.call("DELETE", where), 404, "not-found")
    assert_problem(
        caller.verify("bob@example.com", caller.number("bob@example.com")), 403, "verification-failed"
    )


def asked_twice_and_done_once(caller: Caller, place: Place) -> None:
    """An Idempotency-Key, with `respond-async`; in between, every node forgets its scripts."""
    once = {"Idempotency_Key": "k-1", "Prefer": "respond-async"}
    first = caller.register("eve@example.com", **once)
    assert first.status_code == 202, first.text
    caller.number("eve@example.com")
    place.forget_scripts()
    again = caller.register("eve@example.com", **once)
    assert again.status_code in REGISTERED
    assert again.json()["id"] == first.json()["id"]
    assert_problem(caller.register("eve@example.com", "other", **once), 422, "idempotency-key-reused")
    assert caller.verify("eve@example.com", caller.number("eve@example.com")).status_code == 200


def budgets_are_kept(caller: Caller) -> None:
    """Three registrations, two wrong numbers."""
    for _ in range(3):
        assert caller.register("max@example.com").status_code in REGISTERED
    assert_problem(caller.register("max@example.com"), 429, "too-many-registrations")
    number = caller.number("ada@example.com", 2)  # of somebody else, so its check digit is right
    for _ in range(2):
        assert_problem(caller.verify("max@example.com", number), 403, "verification-failed")
    refused = caller.verify("max@example.com", caller.number("max@example.com", 1))
    assert_problem(refused, 429, "too-many-attempts")
    assert 3000 < int(refused.headers["Retry-After"]) <= 3600


def clients_are_counted(caller: Caller) -> None:
    """In both workers together, exactly."""
    answers = [caller.call("GET", f"/api/users/{'a' * 26}").status_code for _ in range(CLIENT_LIMIT + 3)]
    assert answers == [404] * CLIENT_LIMIT + [429] * 3


def owed_by_the_dead(
    place: Place, service: Gunicorn, mail: MailServer, settings: dict[str, str], tmp_path: Path
) -> None:
    """The mail server is down, then the service is killed; another process delivers."""
    mail.stop()
    assert Caller(service, mail, "192.0.2.6").register("zoe@example.com", "owed").status_code == 202
    service.kill()
    assert kinds(place.client)["outbox"] == 1
    mail.start()
    with gunicorn(tmp_path, settings, "--workers", "1") as other:
        number = mail.box.wait_for("zoe@example.com", 1, 40)[-1].number
        assert number == Records(place.client, settings["SECRET_KEY"]).number_of("zoe@example.com")
        wait_until(lambda: kinds(place.client)["outbox"] == 0, 30, "nothing is owed")
        assert Caller(other, mail, "192.0.2.6").verify("zoe@example.com", number).json()["token"] == "owed"
