"""Services from outside: no key of one reads, changes, exhausts or finds what is another's."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from functools import partial
from http.client import HTTPConnection

import pytest
import redis

from tests.api.conftest import Api, bearer, named, wrong
from tests.support.scan import contradictions
from tests.support.servers import Gunicorn, MailServer
from tests.support.tenants import key_of, services_file

Serving = Callable[..., AbstractContextManager[Gunicorn]]


@pytest.fixture(scope="module")
def shared(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    path = services_file(
        tmp_path_factory.mktemp("services"),
        shop={"sender": "Acme Shop <no-reply@shop.example>", "address_limit": "3/hour"},
        bank={"address_limit": "3/hour", "number_ttl": 600},
        rehearsal={"test": True},
    )
    with serving(SERVICES_FILE=str(path), MAILBOX_LIMIT="") as server:
        yield server


def caller(shared: Gunicorn, mail: MailServer, service: str) -> Api:
    return Api(shared, mail, key_of(service))


@pytest.fixture
def shop(shared: Gunicorn, mail: MailServer, store: redis.Redis) -> Api:
    return caller(shared, mail, "shop")


@pytest.fixture
def bank(shared: Gunicorn, mail: MailServer, store: redis.Redis) -> Api:
    return caller(shared, mail, "bank")


OF_ONE_USER = [
    ("GET", ""),
    ("DELETE", ""),
    ("POST", "/resend"),
    ("GET", "/mail"),
]


@pytest.mark.parametrize(("method", "path"), OF_ONE_USER)
@pytest.mark.parametrize("other", ["bank", "rehearsal"])
def test_a_foreign_id_is_not_found(
    shop: Api, shared: Gunicorn, mail: MailServer, email: str, other: str, method: str, path: str
) -> None:
    """As one that nobody has; and the registration stays as it was."""
    user_id = shop.register(email).json()["id"]
    before = shop.call("GET", f"/api/users/{user_id}").json()
    stranger = caller(shared, mail, other)
    answer = stranger.call(method, f"/api/users/{user_id}{path}")
    nobody = stranger.call(method, f"/api/users/{'a' * 26}{path}")
    assert (answer.status_code, answer.json()) == (nobody.status_code, nobody.json())
    assert answer.status_code == 404
    assert shop.call("GET", f"/api/users/{user_id}").json() == before
    assert len(mail.box.to(email)) == 1


ODD_SPELLINGS = [
    "/api/users/{}/",
    "//api/users/{}",
    "/api//users/{}",
    "/api/users/{}%2Fmail",
    "/api%2Fusers/{}",
    "/%61pi/users/{}",
    "/x/../api/users/{}",
    "/metrics/../api/users/{}",
    "/api/users/{};x",
    "/api/users/{}%00",
    "/api/users/{}?_method=DELETE",
    "http://elsewhere.example/api/users/{}",
]
LEADING_ASTRAY = {
    "X-HTTP-Method-Override": "DELETE",
    "X-Original-URL": "/api/users/verify",
    "X-Rewrite-URL": "/healthz",
    "X-Forwarded-Prefix": "/api",
    "SCRIPT_NAME": "/api",
}


@pytest.mark.parametrize("spelling", ODD_SPELLINGS)
def test_no_spelling_of_a_path_leads_to_what_is_another_s(
    shop: Api, shared: Gunicorn, email: str, spelling: str
) -> None:
    """With a key of another service or of a test service, or without one; nor do headers of proxies."""
    user_id = shop.register(email).json()["id"]
    before = shop.call("GET", f"/api/users/{user_id}").json()
    for key in (key_of("bank"), key_of("rehearsal"), ""):
        for method in ("GET", "HEAD", "POST", "DELETE", "PUT"):
            status, text = literally(shared.port, method, spelling.format(user_id), key)
            assert status in (400, 401, 404, 405), (method, key)
            assert email not in text
    assert shop.call("GET", f"/api/users/{user_id}").json() == before


def literally(port: int, method: str, target: str, key: str) -> tuple[int, str]:
    """Status and body for a target that nothing rewrites on its way."""
    headers = LEADING_ASTRAY | (bearer(key) if key else {})
    with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.mark.parametrize("shard", ["77", "7z"])
def test_an_id_of_a_shard_that_no_mailbox_has_is_unknown(shop: Api, email: str, shard: str) -> None:
    """Two characters can say 1,024, and there are 1,000."""
    user_id = shop.register(email).json()["id"]
    for method, path in OF_ONE_USER:
        assert shop.call(method, f"/api/users/{shard}{user_id[2:]}{path}").status_code == 404


def test_a_number_is_good_at_its_own_service_only(shop: Api, bank: Api, email: str) -> None:
    """At the other it is as wrong as any."""
    number = shop.registered(email)
    assert bank.verify(email, number).json()["type"] == "/problems/verification-failed"
    assert shop.verify(email, number).json()["token"] == "t0ken"


def test_both_have_the_address_and_each_its_own_token(
    shop: Api, bank: Api, email: str, store: redis.Redis
) -> None:
    """Registering, verifying and erasing at one of them leaves the other's alone."""
    first = shop.registered(email, "shop's token")
    second = bank.registered(email, "bank's token")
    ids = [
        api.call("POST", "/api/users", json={"email": email, "token": "x"}).json()["id"]
        for api in (shop, bank)
    ]
    assert len(set(ids)) == 2
    assert [number[-4:-1] for number in (first, second)] == [first[-4:-1]] * 2
    assert shop.call("DELETE", f"/api/users/{ids[0]}").status_code == 204
    assert bank.verify(email, bank.number_of(email)).json()["token"] == "x"
    assert contradictions(store) == []


def test_one_service_cannot_use_up_what_another_may(shop: Api, bank: Api, email: str) -> None:
    """Registrations, resends and wrong numbers are counted for each."""
    number = shop.registered(email)
    for _ in range(2):
        assert shop.register(email).status_code == 201
    assert shop.register(email).status_code == 429
    for n in range(1, 6):
        assert shop.verify(email, wrong(number, n)).status_code == 403
    assert shop.verify(email, number).status_code == 429
    assert bank.verify(email, bank.registered(email)).status_code == 200


def test_who_erases_erases_what_was_just_handed_out_and_nothing_of_another(
    shop: Api, bank: Api, email: str
) -> None:
    """A number was used: only its service may end the two minutes in which its token comes again."""
    user_id = shop.register(email).json()["id"]
    number = shop.number_of(email)
    again = partial(shop.verify, email, number, headers=named("attempt-1"))
    assert [again().status_code for _ in range(2)] == [200] * 2
    assert bank.call("DELETE", f"/api/users/{user_id}").status_code == 404
    assert again().status_code == 200
    assert shop.call("DELETE", f"/api/users/{user_id}").status_code == 204
    assert again().status_code == 403
    assert shop.call("DELETE", f"/api/users/{user_id}").status_code == 404


def test_an_idempotency_key_is_the_service_s_own(shop: Api, bank: Api, email: str, mail: MailServer) -> None:
    """The same key at another service is another request, which is carried out."""
    first = shop.register(email, headers=named("order-1")).json()
    second = bank.register(email, headers=named("order-1")).json()
    assert first["id"] != second["id"]
    assert ("expires_at" in second, "expires_at" in first) == (True, True)
    assert shop.register(email, headers=named("order-1")).json() == first
    assert len(mail.box.to(email)) == 2
    assert bank.verify(email, bank.number_of(email), headers=named("order-1")).status_code == 200
    assert shop.verify(email, bank.number_of(email), headers=named("order-1")).status_code == 403
    assert shop.verify(email, mail.box.to(email)[0].number, headers=named("order-1")).status_code == 200


def test_a_call_without_a_key_is_refused(shared: Gunicorn, store: redis.Redis, email: str) -> None:
    """So is one with a key of nobody; the metrics open to keys of the environment only."""
    for key in ("", "nobody's"):
        api = Api(shared, None, key)
        for method, path in (("POST", "/api/users"), ("GET", "/api/users/" + "a" * 26), ("GET", "/metrics")):
            assert api.call(method, path).status_code == 401
    assert Api(shared, None, key_of("shop")).call("GET", "/metrics").status_code == 401


def test_each_mail_goes_in_its_service_s_name(shop: Api, bank: Api, email: str, mail: MailServer) -> None:
    """The person reads who asks."""
    shop.registered(email)
    assert "shop.example" in mail.box.to(email)[-1].sender
    bank.registered(email)
    assert "shop.example" not in mail.box.to(email)[-1].sender
    assert "Bank" in mail.box.to(email)[-1].part("plain")
