"""Test services: a caller tries its whole sign-up without a mailbox, and nothing is ever mailed."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from tests.api.conftest import Api
from tests.support.servers import Gunicorn, MailServer, gunicorn
from tests.support.tenants import key_of, services_file
from tests.support.waiting import wait_until

Serving = Callable[..., AbstractContextManager[Gunicorn]]
TABLES: dict[str, dict[str, Any]] = {
    "shop": {"sender": "Acme Shop <no-reply@shop.example>"},
    "rehearsal": {"test": True, "locale": "es", "number_ttl": 600, "address_limit": "", "verify_limit": ""},
    "school": {"test": True},
}


@pytest.fixture(scope="module")
def shared(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    path = services_file(tmp_path_factory.mktemp("services"), **TABLES)
    with serving(SERVICES_FILE=str(path), MAIL_TIMEOUT="0.5") as server:
        yield server


@pytest.fixture
def rehearsal(shared: Gunicorn, mail: MailServer, store: redis.Redis) -> Api:
    return Api(shared, mail, key_of("rehearsal"))


@pytest.fixture
def shop(shared: Gunicorn, mail: MailServer, store: redis.Redis) -> Api:
    return Api(shared, mail, key_of("shop"))


def shown(api: Api, user_id: str) -> dict[str, str]:
    answer = api.call("GET", f"/api/users/{user_id}/mail")
    assert answer.status_code == 200, answer.text
    found: dict[str, str] = answer.json()
    return found


def test_the_mail_is_shown_and_its_number_is_good(rehearsal: Api, email: str, mail: MailServer) -> None:
    """The whole sign-up; nothing goes out."""
    registered = rehearsal.register(email)
    assert (registered.status_code, registered.json()["delivery"]) == (201, "sent")
    found = shown(rehearsal, registered.json()["id"])
    assert set(found) == {"to", "from", "subject", "text", "html", "number", "locale"}
    assert (found["to"], found["locale"]) == (email, "es")
    assert "Rehearsal" in found["text"]
    assert "10\u00a0minutos" in found["text"]
    grouped = f"{found['number'][:3]} {found['number'][3:6]} {found['number'][6:]}"
    assert grouped in found["text"]
    assert grouped in found["html"]
    assert rehearsal.verify(email, grouped).json()["token"] == "t0ken"
    assert rehearsal.call("GET", f"/api/users/{registered.json()['id']}/mail").status_code == 404
    assert not mail.box.to(email)


def test_a_resend_is_shown_as_the_same_number(rehearsal: Api, email: str, mail: MailServer) -> None:
    """And is not mailed either."""
    user_id = rehearsal.register(email).json()["id"]
    number = shown(rehearsal, user_id)["number"]
    assert rehearsal.call("POST", f"/api/users/{user_id}/resend").status_code == 200
    assert shown(rehearsal, user_id)["number"] == number
    assert not mail.box.to(email)


def test_a_real_service_has_no_mail_to_show(shop: Api, email: str) -> None:
    """Its number reaches the person by e-mail, and by no other way."""
    user_id = shop.register(email).json()["id"]
    assert shop.call("GET", f"/api/users/{user_id}/mail").status_code == 404


@pytest.mark.parametrize("other", ["shop", "school"])
def test_no_other_service_reads_what_was_not_mailed(
    rehearsal: Api, mail: MailServer, email: str, other: str
) -> None:
    """Not even another test service."""
    user_id = rehearsal.register(email).json()["id"]
    stranger = Api(rehearsal.server, mail, key_of(other))
    assert stranger.call("GET", f"/api/users/{user_id}/mail").status_code == 404
    assert shown(rehearsal, user_id)["to"] == email


def test_refused_is_no_address(rehearsal: Api) -> None:
    """422, and nothing stays."""
    email = f"refused@{uuid.uuid4().hex[:12]}.example.com"
    answer = rehearsal.register(email)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/undeliverable-address")


def test_deferred_stays_pending(rehearsal: Api) -> None:
    """And there is no mail yet."""
    email = f"deferred@{uuid.uuid4().hex[:12]}.example.com"
    answer = rehearsal.register(email)
    assert (answer.status_code, answer.json()["delivery"]) == (202, "pending")
    user_id = answer.json()["id"]
    tried_again = lambda: rehearsal.call("GET", f"/api/users/{user_id}").json()["mail_attempts"] >= 2  # noqa: E731
    wait_until(tried_again, 30, "the relay has tried again")
    found = rehearsal.call("GET", f"/api/users/{user_id}").json()
    assert (found["delivery"], found["mail_error"]) == ("pending", "recipient 451 4.3.0")
    assert rehearsal.call("GET", f"/api/users/{user_id}/mail").status_code == 404


def test_slow_is_sent_after_the_answer(rehearsal: Api) -> None:
    """202 after MAIL_TIMEOUT."""
    email = f"slow@{uuid.uuid4().hex[:12]}.example.com"
    answer = rehearsal.register(email)
    assert (answer.status_code, answer.json()["delivery"]) == (202, "pending")
    assert answer.elapsed.total_seconds() >= 0.5
    user_id = answer.json()["id"]
    sent = lambda: rehearsal.call("GET", f"/api/users/{user_id}").json()["delivery"] == "sent"  # noqa: E731
    wait_until(sent, 20, "it is sent")
    assert shown(rehearsal, user_id)["to"] == email


def test_slow_ones_leave_room_for_real_ones(
    environment: dict[str, str], tmp_path: Path, mail_server: MailServer, store: redis.Redis, email: str
) -> None:
    """However many ask at once: as many wait as there are senders, and the others have their 202 at once."""
    path = services_file(tmp_path, **TABLES)
    settings = environment | {"SERVICES_FILE": str(path), "MAIL_TIMEOUT": "50", "MAIL_CONNECTIONS": "4"}
    places = 30
    with (
        ThreadPoolExecutor(places) as callers,
        gunicorn(tmp_path, settings, "--worker-connections", str(places)) as server,
    ):
        rehearsal, shop = (Api(server, mail_server, key_of(name)) for name in ("rehearsal", "shop"))
        slow = [callers.submit(rehearsal.register, f"slow@{n}.example.com") for n in range(places)]
        wait_until(lambda: len(list(store.scan_iter("*:user:*"))) == places, 30, "all are registered")
        assert shop.register(email).status_code == 201
        answered = [each for each in slow if each.done()]
        assert len(answered) <= places - 4, "it was not kept waiting until they were answered"
        wait_until(lambda: sum(each.done() for each in slow) == places - 4, 30, "the others are answered")
        assert {each.result().status_code for each in slow if each.done()} == {202}


def test_a_registration_stays_what_it_was(
    serving: Serving, tmp_path: Path, mail: MailServer, store: redis.Redis, email: str
) -> None:
    """Whatever the file says later: what was real is not shown, what was a test confirms nothing, and neither
    is mailed again by what the service has become."""
    real, test = f"real.{email}", f"test.{email}"
    deferred = f"deferred@{uuid.uuid4().hex[:12]}.example.com"
    ids: dict[str, str] = {}
    number = ""
    for tables in ({**TABLES}, {"shop": {"test": True}, "rehearsal": {}}):
        path = services_file(tmp_path, **tables)
        with serving(SERVICES_FILE=str(path)) as server:
            shop, rehearsal = Api(server, mail, key_of("shop")), Api(server, mail, key_of("rehearsal"))
            if not ids:
                ids = {
                    real: shop.register(real).json()["id"],
                    test: rehearsal.register(test).json()["id"],
                    deferred: rehearsal.register(deferred).json()["id"],
                }
                number = shown(rehearsal, ids[test])["number"]
                continue
            assert shop.call("GET", f"/api/users/{ids[real]}/mail").status_code == 404
            assert rehearsal.call("GET", f"/api/users/{ids[test]}/mail").status_code == 404
            assert rehearsal.call("POST", f"/api/users/{ids[test]}/resend").status_code == 404
            assert shop.call("POST", f"/api/users/{ids[real]}/resend").status_code == 404
            assert rehearsal.verify(test, number).status_code == 403, "it was shown, and not mailed"
            assert shop.verify(real, shop.number_of(real)).json()["token"] == "t0ken"
    assert len(mail.box.to(real)) == 1
    assert not mail.box.to(test)
    assert not mail.box.to(deferred)


LOCAL = st.from_regex(r"[a-z]{1,10}(\.[a-z]{1,5})?(\+[a-z]{1,5})?", fullmatch=True)
NAMES = st.one_of(st.sampled_from(["refused", "deferred", "refused+x", "Refused", "deferred.x"]), LOCAL)


@given(
    local=NAMES,
    acts=st.lists(st.sampled_from(["register", "async", "resend", "look", "erase", "verify"]), max_size=6),
)
def test_a_test_key_never_makes_a_mail_go_out(
    rehearsal_forever: Api, mail: MailServer, local: str, acts: list[str]
) -> None:
    """Whatever it does, and no key but its own reads what is not mailed."""
    api = rehearsal_forever
    email = f"{local}@{uuid.uuid4().hex[:12]}.example.com"
    before = len(mail.box.mails)
    user_id = api.register(email).json().get("id", "a" * 26)
    for act in acts:
        if act in ("register", "async"):
            headers = {"Prefer": "respond-async"} if act == "async" else {}
            api.register(email, headers=headers)
        elif act == "resend":
            api.call("POST", f"/api/users/{user_id}/resend")
        elif act == "look":
            api.call("GET", f"/api/users/{user_id}/mail")
        elif act == "erase":
            api.call("DELETE", f"/api/users/{user_id}")
        else:
            found = api.call("GET", f"/api/users/{user_id}/mail")
            api.verify(email, found.json().get("number", "4821093753"))
        for other in ("shop", "school"):
            stranger = Api(api.server, mail, key_of(other))
            assert stranger.call("GET", f"/api/users/{user_id}/mail").status_code == 404
    assert len(mail.box.mails) == before


@pytest.fixture(scope="module")
def rehearsal_forever(shared: Gunicorn, mail: MailServer) -> Api:
    """For one test with many examples."""
    return Api(shared, mail, key_of("rehearsal"))
