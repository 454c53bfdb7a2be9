"""Idempotency-Key: one registration however often it is asked for."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
import requests

from tests.api.conftest import BANK, SHOP_NEXT, Api, bearer
from tests.support.scan import contradictions, kinds
from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn
from tests.support.smtp import Gate, ScriptedSmtp, say
from tests.support.waiting import wait_until


def named(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


@pytest.fixture
def smtp() -> Iterator[ScriptedSmtp]:
    server = ScriptedSmtp()
    yield server
    server.close()


@pytest.fixture
def settings(valkey_server: Valkey, store: redis.Redis, smtp: ScriptedSmtp) -> dict[str, str]:
    return {"REDIS_URL": valkey_server.url, "MAIL_SERVER": "127.0.0.1", "MAIL_PORT": str(smtp.port)}


def test_a_thousand_replays_from_32_clients_are_one_registration(
    keyed: Api, email: str, store: redis.Redis
) -> None:
    """One number, one mail; whoever is not told that it is still running gets the same answer."""

    def replay(_: int) -> requests.Response:
        return keyed.register(email, headers=named("8e03978e-40d5-43dd-bc93-6894a57f9324"))

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(replay, range(1000)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {201, 409}
    assert answers[-1].status_code == 201
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert len(keyed.mail.box.to(email)) == 1
    assert kinds(store)["number"] == kinds(store)["user"] == 1
    (sends,) = store.scan_iter("*:sends:*")
    assert store.get(sends) == b"1"
    assert contradictions(store) == []


def test_a_repetition_gets_the_same_answer_even_after_the_number_was_used(
    api: Api, email: str, store: redis.Redis
) -> None:
    """201 stays 201, 202 stays 202, byte for byte; nothing is registered again."""
    first = api.register(email, headers=named("a"))
    assert api.verify(email, api.number_of(email)).status_code == 200
    later = api.register(email, headers=named("b") | {"Prefer": "respond-async"})
    wait_until(lambda: len(api.mail.box.to(email)) == 2)
    for original, name in ((first, "a"), (later, "b")):
        again = api.register(email, headers=named(name))
        assert (again.status_code, again.content) == (original.status_code, original.content)
        assert again.headers["Location"] == original.headers["Location"]
        assert "Preference-Applied" not in again.headers
    assert (first.status_code, later.status_code) == (201, 202)
    assert later.headers["Preference-Applied"] == "respond-async"
    assert len(api.mail.box.to(email)) == 2


def test_the_key_belongs_to_the_address_the_token_and_the_locale(api: Api, email: str) -> None:
    """Another token or locale is a mistake of the client; the default locale is a locale too."""
    first = api.register(email, "one", headers=named("k"))
    assert api.register(email, "one", locale="en", headers=named("k")).content == first.content
    for answer in (
        api.register(email, "two", headers=named("k")),
        api.register(email, "one", locale="es", headers=named("k")),
    ):
        assert answer.status_code == 422
        assert answer.json()["type"] == "/problems/idempotency-key-reused"
    assert api.register(f"un{email}", "two", headers=named("k")).status_code == 201
    assert len(api.mail.box.to(email)) == 1


def test_the_key_belongs_to_one_api_key_s_owner(keyed: Api, email: str) -> None:
    """The shop's second key repeats the shop's request; the bank's same word is another request."""
    first = keyed.register(email, headers=named("k"))
    assert keyed.register(email, headers=named("k") | bearer(SHOP_NEXT)).content == first.content
    assert len(keyed.mail.box.to(email)) == 1
    assert keyed.register(email, "other", headers=named("k") | bearer(BANK)).status_code == 201
    assert len(keyed.mail.box.to(email)) == 2


def test_a_repetition_costs_nothing_of_the_address_s_budget(keyed: Api, email: str) -> None:
    """Ten an hour are allowed: twenty repetitions are none of them, and are answered after it is used up."""
    first = keyed.register(email, headers=named("k"))
    for _ in range(20):
        assert keyed.register(email, headers=named("k")).status_code == 201
    for _ in range(9):
        assert keyed.register(email).status_code == 201
    assert keyed.register(email).status_code == 429
    assert keyed.register(email, headers=named("k")).content == first.content
    limited = keyed.register(email, headers=named("new"))
    assert limited.status_code == 429
    assert 3590 <= int(limited.headers["Retry-After"]) <= 3600


@pytest.mark.parametrize("key", ["", "\u00e9", "k" * 256, "tab\tinside"])
def test_what_is_no_key_is_refused(api: Api, email: str, key: str) -> None:
    """1 to 255 visible ASCII characters, spaces inside."""
    answer = api.register(email, headers={"Idempotency-Key": key.encode("latin-1")})
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["Idempotency-Key"]
    assert api.mail.box.to(email) == []


def test_a_mark_holds_nothing_personal_and_ends(keyed: Api, email: str, store: redis.Redis) -> None:
    """An erasure cannot find it, so there is nothing in it to erase."""
    keyed.register(email, "s3cret-token", headers=named("order-4711"))
    (key,) = store.scan_iter("*:idempotency:*")
    held = key + (store.get(key) or b"")
    for secret in (email, "s3cret-token", "order-4711", keyed.number_of(email), "shop"):
        assert secret.encode() not in held
    assert 86_390_000 < store.pttl(key) <= 86_400_000


def test_while_the_first_is_running_the_same_is_told_to_wait(
    tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, email: str
) -> None:
    """409 with Retry-After while the mail server thinks; then the same answer for both."""
    smtp.script["content"] = gate = Gate()
    with gunicorn(tmp_path, settings) as server:
        api = Api(server, MailServer)  # type: ignore[arg-type] - the mails are in `smtp`
        answers: list[requests.Response] = []
        first = threading.Thread(target=lambda: answers.append(api.register(email, headers=named("k"))))
        first.start()
        gate.wait()
        running = api.register(email, headers=named("k"))
        assert running.status_code == 409
        assert running.json()["type"] == "/problems/request-in-progress"
        assert int(running.headers["Retry-After"]) >= 1
        assert api.register(email, "other", headers=named("k")).status_code == 422
        gate.open()
        first.join()
        again = api.register(email, headers=named("k"))
        assert (again.status_code, again.content) == (answers[0].status_code, answers[0].content)
        assert again.status_code == 201
    assert len(smtp.to(email)) == 1


def test_an_error_releases_the_key(
    tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, email: str, store: redis.Redis
) -> None:
    """The mail server refused the address; it is told otherwise, and the same request is carried out."""
    smtp.script["rcpt"] = say("550 5.1.1 No such user")
    with gunicorn(tmp_path, settings) as server:
        api = Api(server, MailServer)  # type: ignore[arg-type]
        for _ in range(2):
            answer = api.register(email, headers=named("k"))
            assert (answer.status_code, answer.json()["type"]) == (422, "/problems/undeliverable-address")
            assert kinds(store)["user"] == kinds(store)["idempotency"] == 0
        smtp.script.clear()
        assert api.register(email, headers=named("k")).status_code == 201


def test_a_key_is_forgotten_after_its_time(
    tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, email: str, store: redis.Redis
) -> None:
    """IDEMPOTENCY_TTL counts from the answer."""
    with gunicorn(tmp_path, {**settings, "IDEMPOTENCY_TTL": "1"}) as server:
        api = Api(server, MailServer)  # type: ignore[arg-type]
        assert api.register(email, "one", headers=named("k")).status_code == 201
        assert api.register(email, "two", headers=named("k")).status_code == 422
        wait_until(lambda: not list(store.scan_iter("*:idempotency:*")), 5)
        assert api.register(email, "two", headers=named("k")).status_code == 201
        assert len(smtp.to(email)) == 2


def commit_and_die(server: Gunicorn, smtp: ScriptedSmtp, email: str) -> None:
    """kill -9 while the mail server holds the mail: after the commit, before the answer."""
    smtp.script["content"] = gate = Gate()
    api = Api(server, MailServer)  # type: ignore[arg-type]

    def ask() -> None:
        with pytest.raises(requests.ConnectionError):
            api.register(email, headers=named("k"))

    asking = threading.Thread(target=ask)
    asking.start()
    gate.wait()
    server.kill()
    asking.join()
    smtp.hang_up()
    smtp.script.clear()  # new conversations go on; the one that was cut off stays at the gate


def age(store: redis.Redis, seconds: int) -> None:
    """Makes the mark older, as if so much time had passed."""
    (mark,) = store.scan_iter("*:idempotency:*")
    fingerprint, registration, created, answer = (store.get(mark) or b"").decode().split("|")
    older = "|".join([fingerprint, registration, str(int(created) - seconds * 1000), answer])
    store.set(mark, older, keepttl=True)


def test_after_a_crash_behind_the_commit_the_retry_is_answered_from_the_record(
    tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, email: str, store: redis.Redis
) -> None:
    """409 for a minute (made to pass here), then the registration that stands: one number, no second one."""
    with gunicorn(tmp_path, settings) as server:
        commit_and_die(server, smtp, email)
    (number,) = store.scan_iter("*:number:*")
    with gunicorn(tmp_path, {**settings, "MAIL_TIMEOUT": "0.5"}) as server:
        api = Api(server, MailServer)  # type: ignore[arg-type]
        assert api.register(email, headers=named("k")).status_code == 409
        age(store, 61)
        answer = api.register(email, headers=named("k"))
        assert (answer.status_code, answer.json()["delivery"]) == (202, "pending")
        assert api.register(email, headers=named("k")).content == answer.content
        assert list(store.scan_iter("*:number:*")) == [number]
        assert contradictions(store) == []


def test_after_a_crash_that_left_no_record_the_retry_is_carried_out(
    tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, email: str, store: redis.Redis
) -> None:
    """Killed between erasing a refused address and saying so: "pending" would promise a mail for ever."""
    with gunicorn(tmp_path, settings) as server:
        commit_and_die(server, smtp, email)
    (record,) = store.scan_iter("*:user:*")
    tag, _, user_id = record.decode().split(":")
    store.delete(record, *store.scan_iter("*:number:*"), *store.scan_iter("*:sender:*"))
    store.zrem(f"{tag}:outbox", user_id)
    with gunicorn(tmp_path, {**settings, "MAIL_TIMEOUT": "0.5"}) as server:
        api = Api(server, MailServer)  # type: ignore[arg-type]
        age(store, 61)
        assert api.register(email, headers=named("k")).status_code in (201, 202)
        assert len(list(store.scan_iter("*:number:*"))) == 1
        assert contradictions(store) == []


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_after_a_crash_the_retry_waits_a_minute_and_the_mail_goes_out(
    tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, email: str, store: redis.Redis
) -> None:
    """In real time: the relay mails it when the dead sender's lease has ended, and the retry says 201."""
    with gunicorn(tmp_path, settings) as server:
        commit_and_die(server, smtp, email)
    (number,) = store.scan_iter("*:number:*")
    with gunicorn(tmp_path, settings) as server:
        api = Api(server, MailServer)  # type: ignore[arg-type]
        began = time.monotonic()

        def answered() -> requests.Response | None:
            answer = api.register(email, headers=named("k"))
            return None if answer.status_code == 409 else answer

        answer = wait_until(answered, 70)
        assert time.monotonic() - began > 50
        assert answer.status_code == 201, json.dumps(answer.json())
        assert list(store.scan_iter("*:number:*")) == [number]
        assert len(smtp.to(email)) == 1
        assert api.verify(email, smtp.to(email)[0].number).status_code == 200


def test_a_crash_before_the_commit_lets_the_retry_through(
    tmp_path: Path, smtp: ScriptedSmtp, email: str
) -> None:
    """The process dies while Redis is silent: nothing was decided, so the retry is the first."""
    valkey = Valkey(tmp_path, save="")
    try:
        settings = {"REDIS_URL": valkey.url, "MAIL_SERVER": "127.0.0.1", "MAIL_PORT": str(smtp.port)}
        with gunicorn(tmp_path, settings) as server:
            api = Api(server, MailServer)  # type: ignore[arg-type]
            assert api.register(f"un{email}").status_code == 201
            valkey.kill()
            assert api.register(email, headers=named("k")).status_code == 503
            valkey.start()
            wait_until(lambda: api.call("GET", "/readyz").ok, 10)
            assert api.register(email, headers=named("k")).status_code == 201
            assert len(smtp.to(email)) == 1
    finally:
        valkey.stop()
