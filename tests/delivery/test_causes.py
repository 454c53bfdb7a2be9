"""Log lines of a mail name the request that caused it."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.support.servers import Gunicorn, gunicorn
from tests.support.smtp import Gate, ScriptedSmtp, say
from tests.support.waiting import wait_until

KEY = "k" * 40


def lines(service: Gunicorn, event: str) -> list[dict[str, Any]]:
    """The log lines of one event."""
    found = (json.loads(line) for line in service.log.splitlines() if line.startswith("{"))
    return [line for line in found if line["event"] == event]


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]
) -> Iterator[tuple[Gunicorn, ScriptedSmtp]]:
    """A service with a caller, and its mail server."""
    smtp = ScriptedSmtp()
    own = {
        **shared_environment,
        "MAIL_PORT": str(smtp.port),
        "MAIL_DEFAULT_SENDER": "no-reply@example.com",
        "API_KEYS": f"shop:{hashlib.sha256(KEY.encode()).hexdigest()}",
    }
    with gunicorn(tmp_path_factory.mktemp("shop"), own) as service:
        yield service, smtp
    smtp.close()


@pytest.mark.parametrize(
    ("reply", "event"),
    [("450 4.2.1 Later", "mail_put_off"), ("550 5.7.1 Relaying denied", "mail_refused_by_server")],
)
@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}], ids=["waits", "async"])
def test_a_senders_line_names_request_and_caller_also_when_the_mail_is_tried_again(
    headers: dict[str, str],
    reply: str,
    event: str,
    store: redis.Redis,
    shop: tuple[Gunicorn, ScriptedSmtp],
) -> None:
    """The first try beside the request, and the second from the relay."""
    service, smtp = shop
    smtp.script["rcpt"] = say(reply)
    cause = uuid.uuid4().hex
    told = {"Authorization": f"Bearer {KEY}", "X-Request-ID": cause, **headers}
    assert service.register("ada@example.com", headers=told).status_code == 202

    def told_of() -> list[dict[str, Any]]:
        return [line for line in lines(service, event) if line["request_id"] == cause]

    wait_until(lambda: len(told_of()) >= 2, 40, "it is tried again")
    assert {line["caller"] for line in told_of()} == {"shop"}
    assert all(line["request_id"] for line in lines(service, event))
    assert "ada@example.com" not in service.log


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 422), ({"Prefer": "respond-async"}, 202)], ids=["waits", "async"]
)
def test_a_refused_address_has_a_line_with_the_reply_and_is_not_called_given_up(
    headers: dict[str, str],
    status: int,
    store: redis.Redis,
    shop: tuple[Gunicorn, ScriptedSmtp],
) -> None:
    """Its caller may know no more than 422, and the mail server may have meant us."""
    service, smtp = shop
    smtp.script["rcpt"] = say("550 relay not permitted")
    cause = uuid.uuid4().hex
    told = {"Authorization": f"Bearer {KEY}", "X-Request-ID": cause, **headers}
    assert service.register("ada@example.com", headers=told).status_code == status

    def told_of(event: str) -> list[tuple[str, str]]:
        mine = [line for line in lines(service, event) if line["request_id"] == cause]
        return [(line["fault"], line["level"]) for line in mine]

    wait_until(lambda: told_of("mail_address_refused") == [("recipient 550", "info")], 20, "the line")
    assert told_of("mail_given_up") == []
    assert "ada@example.com" not in service.log
    assert "permitted" not in service.log


def test_a_mail_that_follows_another_names_its_own_request(
    store: redis.Redis, shop: tuple[Gunicorn, ScriptedSmtp]
) -> None:
    """Registered anew while its mail is under way, an address has its next mail from the same sender."""
    service, smtp = shop
    smtp.script.clear()
    smtp.script["content"] = gate = Gate(holds=1)
    first, second = uuid.uuid4().hex, uuid.uuid4().hex

    def register(cause: str) -> None:
        told = {"Authorization": f"Bearer {KEY}", "X-Request-ID": cause, "Prefer": "respond-async"}
        assert service.register("ada@example.com", headers=told).status_code == 202

    register(first)
    gate.wait()
    register(second)
    smtp.script["rcpt"] = say("550 relay not permitted")
    gate.open()
    wait_until(lambda: lines(service, "mail_address_refused")[-1:], 20, "the line")
    assert lines(service, "mail_address_refused")[-1]["request_id"] == second
