"""Looking a registration up, erasing it, and the end of its life."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
import redis

from tests.api.conftest import Api, wrong
from tests.support.records import Records
from tests.support.scan import contradictions, kinds
from tests.support.servers import MailServer, Valkey, gunicorn
from tests.support.waiting import wait_until


def test_a_registration_can_be_looked_up_where_the_location_says(api: Api, email: str) -> None:
    """Its delivery and times, and neither number nor token; looking consumes nothing."""
    registered = api.register(email, "s3cret-token")
    assert registered.headers["Location"] == f"/api/users/{registered.json()['id']}"
    for _ in range(3):
        answer = api.call("GET", registered.headers["Location"])
        assert answer.status_code == 200
        body = answer.json()
        assert {**body, "mailed_at": ""} == {**registered.json(), "mailed_at": "", "mail_attempts": 1}
        assert datetime.fromisoformat(body["mailed_at"]) >= datetime.fromisoformat(body["created_at"])
        assert "s3cret-token" not in answer.text
        assert api.number_of(email) not in answer.text
    assert api.verify(email, api.number_of(email)).status_code == 200
    assert api.call("GET", registered.headers["Location"]).status_code == 404


def test_the_same_address_is_always_the_same_user(api: Api, email: str) -> None:
    """The id names the address and not the registration."""
    first, second = api.register(email).json(), api.register(email.upper()).json()
    assert first["id"] == second["id"]
    assert second["email"] == f"{email.split('@')[0].upper()}@example.com"


def test_erasing_leaves_nothing_of_the_address_but_its_budgets(
    keyed: Api, email: str, store: redis.Redis
) -> None:
    """204 without a body, then 404; the number is worth nothing."""
    user_id = keyed.register(email).json()["id"]
    assert keyed.verify(email, wrong(keyed.number_of(email))).status_code == 403
    answer = keyed.call("DELETE", f"/api/users/{user_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "Content-Type" not in answer.headers
    left = kinds(store)
    assert left["user"] == left["number"] == left["outbox"] == 0
    assert left["sends"] == left["tries"] == 1
    for method in ("GET", "DELETE"):
        again = keyed.call(method, f"/api/users/{user_id}")
        assert (again.status_code, again.json()["type"]) == (404, "/problems/not-found")
    assert keyed.verify(email, keyed.number_of(email)).status_code == 403


@pytest.mark.parametrize(
    "user_id", ["verify", "a" * 25, "a" * 27, "A" * 26, "1" * 26, "a" * 25 + "/", "a" * 26]
)
def test_what_is_no_user_is_not_found(api: Api, user_id: str) -> None:
    """An id is 26 characters of a-z and 2-7; `verify` is never taken for one."""
    answer = api.call("GET", f"/api/users/{user_id}")
    expected = (405, "method-not-allowed") if user_id == "verify" else (404, "not-found")
    assert (answer.status_code, answer.json()["type"]) == (expected[0], f"/problems/{expected[1]}")


def test_a_registration_ends_with_its_life(
    tmp_path: Path, valkey_server: Valkey, mail_server: MailServer, store: redis.Redis, email: str
) -> None:
    """NUMBER_TTL: record and number go together, and until then `expires_at` says when."""
    environment = {
        "REDIS_URL": valkey_server.url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(mail_server.port),
        "NUMBER_TTL": "2",
    }
    with gunicorn(tmp_path, environment) as server:
        api = Api(server, mail_server)
        number = api.registered(email)
        path = f"/api/users/{Records(store).keys(email).user_id}"
        body = api.call("GET", path).json()
        created, expires = (datetime.fromisoformat(body[name]) for name in ("created_at", "expires_at"))
        assert expires - created == timedelta(seconds=2)
        ends = {
            store.pexpiretime(key)
            for pattern in ("*:user:*", "*:number:*")
            for key in store.scan_iter(pattern)
        }
        assert len(ends) == 1
        wait_until(lambda: api.call("GET", path).status_code == 404, 30)
        assert api.verify(email, number).status_code == 403
        assert contradictions(store) == []
        assert kinds(store)["number"] == 0
        assert api.verify(email, api.registered(email)).status_code == 200
