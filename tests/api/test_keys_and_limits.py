"""Who may call, and how often."""

import http.client
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
import redis
import requests

from app.config import Settings
from app.directory.directory import Directory, digest
from app.directory.reading import Reading
from app.directory.source import Source
from app.domain.service import Budget, Caller, Service
from app.errors import TooManyRequests
from app.repositories.client_limits import ClientLimits
from app.repositories.keys import Names
from app.storage.storage import Storage
from tests.api.conftest import API_KEYS, BANK, SHOP, SHOP_NEXT, Api, at_once, bearer
from tests.support.servers import (
    ROOT,
    Gunicorn,
    MailServer,
    Valkey,
    free_port,
    gunicorn,
    settings_for,
    stopping,
)
from tests.support.waiting import wait_until


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {SHOP}x",
        f"Basic {SHOP}",
        f"Token {SHOP}",
        SHOP,
        f"Bearer {SHOP} {SHOP}",
        "Bearer \u00fc",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/users"),
        ("POST", "/api/users/verify"),
        ("GET", "/api/users/" + "a" * 26),
        ("DELETE", "/api/users/" + "a" * 26),
        ("GET", "/metrics"),
        ("PUT", "/api/users"),
        ("OPTIONS", "/api/users"),
        ("GET", "/api/nothing"),
        ("GET", "/api/"),
        ("GET", "/api"),
    ],
)
def test_without_a_key_nobody_learns_anything(
    keyed: Api, method: str, path: str, authorization: str | None
) -> None:
    """401 comes before 404 and 405, and before the body is looked at."""
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    answer = keyed.server.http.request(method, keyed.url + path, headers=headers, data=b"{", timeout=10)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["type"] == "/problems/unauthorized"
    assert "Allow" not in answer.headers


@pytest.mark.parametrize("path", ["//api/users", "///api/users", "//metrics", "/%61pi/users"])
def test_no_way_of_writing_a_path_needs_no_key(keyed: Api, path: str) -> None:
    """The router overlooks slashes at the beginning; so does the guard."""
    host, port = keyed.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", path)
    assert connection.getresponse().status == 401
    connection.close()


@pytest.mark.parametrize("key", [SHOP, SHOP_NEXT, BANK])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_every_key_opens_the_same(keyed: Api, email: str, key: str, scheme: str) -> None:
    """Several keys may have one name; all keys are one tenant."""
    headers = {"Authorization": f"{scheme} {key}"}
    user_id = keyed.register(email).json()["id"]
    assert keyed.call("GET", f"/api/users/{user_id}", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/docs", "/problems/unauthorized"])
def test_what_is_not_personal_needs_no_key(keyed: Api, path: str) -> None:
    """Probes and readers of the documentation have none."""
    assert requests.get(keyed.url + path, timeout=20).status_code == 200


def test_keys_are_compared_in_constant_time() -> None:
    """A key is found by a digest that nobody can foresee, and its own digest is then compared as a whole."""
    service = Service()
    keys = {digest("key"): Caller(service, "first")}
    directory = Directory(Reading(Source("", {}, None), closed=False, services=[service], keys=keys))
    assert directory.caller("key") == Caller(service, "first")
    assert directory.caller("kez") is None
    assert directory.caller("") is None


def test_a_key_is_shown_once_with_the_entry_to_add() -> None:
    """`flask keys new`: the entry is the digest of the key and a setting that is accepted."""
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "keys", "new", "shop.1"]
    environment = {"PATH": "", "REDIS_URL": "redis://127.0.0.1:1"}
    outputs = [
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    found = []
    for output in outputs:
        key = re.search(r"^  (cedula_\S{43})$", output.stdout, re.MULTILINE)
        entry = re.search(r"^  (shop\.1):([0-9a-f]{64})$", output.stdout, re.MULTILINE)
        assert key
        assert entry
        assert digest(key[1]) == entry[2]
        assert "Traceback" not in output.stderr
        found.append(key[1])
    assert found[0] != found[1]


def test_a_name_that_could_not_be_configured_gets_no_key() -> None:
    """A comma would end the entry."""
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "keys", "new", "a,b"]
    environment = {"PATH": "", "REDIS_URL": "redis://127.0.0.1:1"}
    output = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert output.returncode == 2
    assert "cedula_" not in output.stdout


def test_an_address_is_registered_ten_times_an_hour_however_it_is_written(
    keyed: Api, email: str, store: redis.Redis
) -> None:
    """The eleventh hears how long to wait; what the tenth made stays whole."""
    for turn in range(10):
        assert keyed.register(email if turn % 2 else email.upper()).status_code == 201
    answer = keyed.register(email)
    assert answer.status_code == 429
    assert answer.json()["type"] == "/problems/too-many-registrations"
    assert 3590 <= int(answer.headers["Retry-After"]) <= 3600
    number = max(keyed.mail.box.to(email), key=lambda mail: mail.message["Date"]).number
    assert len(number) == 10
    (sends,) = store.scan_iter("*:sends:*")
    assert store.get(sends) == b"10"
    store.delete(sends)
    assert keyed.register(email).status_code == 201


def test_a_hundred_registrations_at_once_are_all_counted(keyed: Api, email: str) -> None:
    """No race lets a mailbox have more mails than the limit."""
    answers = at_once(100, lambda: keyed.register(email).status_code)
    assert sum(status in (201, 202) for status in answers) == 10
    assert answers.count(429) == 90


def test_a_refused_request_costs_nothing_of_the_budget(keyed: Api, email: str, store: redis.Redis) -> None:
    """Only registrations count."""
    for body in ({"email": email}, {"email": email, "token": ""}, {"email": email, "token": "t", "x": 1}):
        assert keyed.call("POST", "/api/users", json=body).status_code == 422
    assert not list(store.scan_iter("*:sends:*"))


Limited = Callable[..., AbstractContextManager[Gunicorn]]


@pytest.fixture
def limited(tmp_path: Path, environment: dict[str, str], mail_server: MailServer) -> Limited:
    def start(**settings: str) -> AbstractContextManager[Gunicorn]:
        return gunicorn(tmp_path, {**environment, "CLIENT_LIMIT": "3/minute", **settings})

    return start


def test_a_client_may_ask_so_often(limited: Limited, store: redis.Redis, email: str) -> None:
    """Per owner of a key; probes and documentation are not counted, and 401 is not either."""
    with limited(API_KEYS=API_KEYS) as server:
        api = Api(server)
        path = "/api/users/" + "a" * 26
        for _ in range(5):
            assert api.call("GET", path).status_code == 401
            assert api.call("GET", "/healthz").status_code == 200
        for key in (SHOP, SHOP_NEXT, SHOP):
            assert api.call("GET", path, headers=bearer(key)).status_code == 404
        answer = api.register(email, headers=bearer(SHOP))
        assert answer.status_code == 429
        assert answer.json()["type"] == "/problems/too-many-requests"
        assert 1 <= int(answer.headers["Retry-After"]) <= 61
        assert api.call("GET", path, headers=bearer(BANK)).status_code == 404
        assert not list(store.scan_iter("*:user:*"))
        assert all(store.ttl(key) > 0 for key in store.scan_iter("cedula:limits*"))


def count(limited: tuple[ClientLimits, tuple[Budget, ...]], client: str = "shop") -> int:
    """0, or the seconds to wait."""
    counters, limits = limited
    try:
        counters.count(client, limits)
    except TooManyRequests as error:
        return error.retry_after_s or -1
    return 0


def test_several_limits_hold_together(valkey_server: Valkey, store: redis.Redis) -> None:
    """The full window that lasts longest says how long to wait; who is refused uses nothing up."""
    limits = (ClientLimits(Storage(valkey_server.url, 5.0), Names(None)), (Budget(3, 60), Budget(5, 3600)))
    assert [count(limits) for _ in range(3)] == [0, 0, 0]
    assert all(50 < count(limits) <= 60 for _ in range(5))
    assert count(limits, "bank") == 0
    store.delete(*store.scan_iter("cedula:limits:*:3/60"))
    assert [count(limits) for _ in range(2)] == [0, 0]
    assert 3500 < count(limits) <= 3600


def test_no_wait_is_longer_than_its_window(valkey_server: Valkey, store: redis.Redis) -> None:
    """The clock of Redis was set back an hour."""
    limits = (ClientLimits(Storage(valkey_server.url, 5.0), Names(None)), (Budget(1, 60),))
    assert count(limits) == 0
    (counter,) = store.scan_iter("cedula:limits:*")
    store.pexpire(counter, 3_660_000)
    assert count(limits) == 60
    assert store.pttl(counter) <= 60_000


def test_no_race_overdraws_a_limit(valkey_server: Valkey, store: redis.Redis) -> None:
    """Also while the script cache is lost again and again."""
    limits = (
        ClientLimits(Storage(valkey_server.url, 5.0), Names(None)),
        (Budget(10, 3600), Budget(10, 7200)),
    )

    def ask() -> bool:
        store.script_flush()
        return count(limits) == 0

    assert Counter(at_once(64, ask)) == {True: 10, False: 54}
    assert all(store.ttl(key) > 3500 for key in store.scan_iter("cedula:limits:*"))


def test_log_and_metrics_name_the_caller(keyed: Api, email: str) -> None:
    """By the name of its API key, never by the key; without a key that fits there is none."""
    keyed.register(email)
    keyed.call("GET", "/api/users/" + "a" * 26, headers=bearer("a key that nobody has"))
    lines = [json.loads(line) for line in keyed.server.log.splitlines() if '"event":"request"' in line]
    callers = {(line["status"], line["caller"]) for line in lines}
    assert {(201, "shop"), (401, "")} <= callers
    assert SHOP not in keyed.server.log
    counted = [
        line
        for line in keyed.call("GET", "/metrics").text.splitlines()
        if line.startswith("cedula_requests_total") and 'status="201"' in line
    ]
    assert any('caller="shop"' in line for line in counted)


def test_without_keys_a_client_is_its_ip_address(limited: Limited, store: redis.Redis) -> None:
    """No proxy is believed, and no address stands in Redis."""
    with limited() as server:
        api = Api(server)
        path = "/api/users/" + "a" * 26
        statuses = [
            api.call("GET", path, headers={"X-Forwarded-For": f"10.0.0.{turn}"}).status_code
            for turn in range(4)
        ]
        assert statuses == [404, 404, 404, 429]
        for key in store.scan_iter("*"):
            assert b"127.0.0.1" not in key
            assert b"10.0.0" not in key


def status_for(api: Api, forwarded: str) -> int:
    """What a client hears whose address a proxy has forwarded."""
    headers = {"X-Forwarded-For": forwarded}
    return api.call("GET", "/api/users/" + "a" * 26, headers=headers).status_code


def test_behind_a_proxy_a_client_is_who_the_proxy_says(limited: Limited) -> None:
    """Of the forwarded addresses, only the one that the nearest proxy has added counts."""
    with limited(TRUSTED_PROXIES="1") as server:
        api = Api(server)
        ask = partial(status_for, api)
        assert [ask(f"1.2.3.{turn}, 10.0.0.1") for turn in range(4)] == [404, 404, 404, 429]
        assert ask("10.0.0.2") == 404


def test_an_ipv6_client_is_its_network(limited: Limited) -> None:
    """Whoever has one address of a /64 has all of them; a port that the proxy adds does not count."""
    with limited(TRUSTED_PROXIES="1") as server:
        api = Api(server)
        ask = partial(status_for, api)
        addresses = ["2001:db8::1", "2001:db8::2:1", "[2001:db8::3]:443", "2001:db8:0:0:4::"]
        assert [ask(address) for address in addresses] == [404, 404, 404, 429]
        assert ask("2001:db8:0:1::1") == 404


def test_limits_that_cannot_be_read_are_not_ignored(
    tmp_path: Path, valkey: Valkey, mail_server: MailServer, email: str
) -> None:
    """Redis away: 503 with Retry-After, and every request again when it is back."""
    settings = settings_for(valkey, mail_server) | {"CLIENT_LIMIT": "100/minute"}
    with gunicorn(tmp_path, settings) as server:
        api = Api(server, mail_server)
        assert api.register(email).status_code == 201
        valkey.kill()
        for answer in (api.register(email), api.call("GET", "/api/users/" + "a" * 26)):
            assert answer.status_code == 503
            assert answer.json()["type"] == "/problems/storage-unavailable"
            assert int(answer.headers["Retry-After"]) >= 1
        assert api.call("GET", "/healthz").status_code == 200
        assert api.call("GET", "/readyz").status_code == 503
        valkey.start()
        assert api.register(email).status_code == 201


def test_every_setting_of_limits_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, digests in any case, an empty budget, one over several minutes."""
    monkeypatch.setenv("API_KEYS", f" a:{'A' * 64} , b:{'b' * 64},")
    monkeypatch.setenv("ADDRESS_LIMIT", "")
    monkeypatch.setenv("VERIFY_LIMIT", "7/2 minutes")
    found = Settings.from_environment()
    assert [(key.name, key.sha256) for key in found.api_keys] == [("a", "a" * 64), ("b", "b" * 64)]
    assert (found.address_limit.amount, found.verify_limit.amount, found.verify_limit.window_s) == (0, 7, 120)


def test_clients_are_counted_on_a_cluster_too(tmp_path: Path, mail_server: MailServer, email: str) -> None:
    """CLIENT_LIMIT counts through the same client as everything else."""
    cluster = {"cluster-enabled": "yes", "cluster-port": free_port()}  # by default 10,000 higher: too high
    with stopping(Valkey(tmp_path, save="", **cluster)) as valkey:
        valkey.client().execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        info = valkey.client().execute_command
        wait_until(lambda: info("CLUSTER INFO")["cluster_state"] == "ok")
        settings = {
            "REDIS_URL": f"redis+cluster://127.0.0.1:{valkey.port}",
            "MAIL_SERVER": "127.0.0.1",
            "MAIL_PORT": str(mail_server.port),
            "CLIENT_LIMIT": "2/minute",
        }
        with gunicorn(tmp_path, settings) as server:
            api = Api(server, mail_server)
            assert api.verify(email, api.registered(email)).status_code == 200
            answer = api.register(email)
            assert answer.status_code == 429
            assert int(answer.headers["Retry-After"]) >= 1
