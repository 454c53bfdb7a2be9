"""Idempotency-Key where the request takes its time, or its process dies: services of the tests' own."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import requests

from tests.api.conftest import Api, named
from tests.support.faults.redis import REFUSALS
from tests.support.people import age_mark
from tests.support.scan import contradictions, kinds
from tests.support.servers import Valkey, gunicorn
from tests.support.smtp import Gate, ScriptedSmtp, say
from tests.support.waiting import wait_until


@pytest.fixture
def smtp() -> Iterator[ScriptedSmtp]:
    server = ScriptedSmtp()
    yield server
    server.close()


@pytest.fixture
def settings(valkey_server: Valkey, store: redis.Redis, smtp: ScriptedSmtp) -> dict[str, str]:
    return {"REDIS_URL": valkey_server.url, "MAIL_SERVER": "127.0.0.1", "MAIL_PORT": str(smtp.port)}


def test_while_the_first_is_running_the_same_is_told_to_wait(
    tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, email: str
) -> None:
    """409 with Retry-After while the mail server thinks; then the same answer for both."""
    smtp.script["content"] = gate = Gate()
    with gunicorn(tmp_path, settings) as server:
        api = Api(server)
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
        api = Api(server)
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
        api = Api(server)
        assert api.register(email, "one", headers=named("k")).status_code == 201
        assert api.register(email, "two", headers=named("k")).status_code == 422
        wait_until(lambda: not list(store.scan_iter("*:idempotency:*")), 30)
        assert api.register(email, "two", headers=named("k")).status_code == 201
        assert len(smtp.to(email)) == 2


WELL_AFTER_S = 15
"""A generous bound on five seconds."""


def answered(api: Api, email: str) -> requests.Response:
    """The answer to a repetition, as soon as it is not told to wait."""

    def asked() -> list[requests.Response]:
        answer = api.register(email, headers=named("k"))
        return [] if answer.status_code == 409 else [answer]

    (answer,) = wait_until(asked, WELL_AFTER_S)
    return answer


def commit_and_die(tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, email: str) -> None:
    """kill -9 while the mail server holds the mail: after the commit, before the answer."""
    smtp.script["content"] = gate = Gate()
    with gunicorn(tmp_path, settings) as server:
        api = Api(server)

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


def test_after_a_crash_behind_the_commit_the_retry_is_answered_from_the_record(
    tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, email: str, store: redis.Redis
) -> None:
    """409 for five seconds (made to pass here), then the registration that stands; no second number."""
    commit_and_die(tmp_path, settings, smtp, email)
    (number,) = store.scan_iter("*:number:*")
    with gunicorn(tmp_path, {**settings, "MAIL_TIMEOUT": "0.5"}) as server:
        api = Api(server)
        age_mark(store, 6)
        answer = api.register(email, headers=named("k"))
        assert (answer.status_code, answer.json()["delivery"]) == (202, "pending")
        assert api.register(email, headers=named("k")).content == answer.content
        assert list(store.scan_iter("*:number:*")) == [number]
        assert contradictions(store) == []


def test_after_a_crash_that_left_no_record_the_retry_is_carried_out(
    tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, email: str, store: redis.Redis
) -> None:
    """Killed between erasing a refused address and saying so: "pending" would promise a mail for ever."""
    commit_and_die(tmp_path, settings, smtp, email)
    (record,) = store.scan_iter("*:user:*")
    tag, _, user_id = record.decode().split(":")
    store.delete(record, *store.scan_iter("*:number:*"), *store.scan_iter("*:sender:*"))
    store.zrem(f"{tag}:outbox", user_id)
    with gunicorn(tmp_path, {**settings, "MAIL_TIMEOUT": "0.5"}) as server:
        api = Api(server)
        age_mark(store, 6)
        assert api.register(email, headers=named("k")).status_code in (201, 202)
        assert len(list(store.scan_iter("*:number:*"))) == 1
        assert contradictions(store) == []


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_after_a_crash_the_retry_is_answered_and_the_mail_goes_out(
    tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, email: str, store: redis.Redis
) -> None:
    """In real time: 409 for five seconds, then 202; it is mailed when the dead sender's lease has ended."""
    commit_and_die(tmp_path, settings, smtp, email)
    (number,) = store.scan_iter("*:number:*")
    with gunicorn(tmp_path, settings) as server:
        api = Api(server)
        assert answered(api, email).status_code == 202
        wait_until(lambda: smtp.to(email), 60)
        assert list(store.scan_iter("*:number:*")) == [number]
        assert len(smtp.to(email)) == 1
        assert api.verify(email, smtp.to(email)[0].number).status_code == 200


def test_a_crash_before_the_commit_lets_the_retry_through(
    tmp_path: Path, valkey: Valkey, smtp: ScriptedSmtp, email: str
) -> None:
    """The process dies while Redis is silent: nothing was decided, so the retry is the first."""
    settings = {"REDIS_URL": valkey.url, "MAIL_SERVER": "127.0.0.1", "MAIL_PORT": str(smtp.port)}
    with gunicorn(tmp_path, settings) as server:
        api = Api(server)
        assert api.register(f"un{email}").status_code == 201
        valkey.kill()
        assert api.register(email, headers=named("k")).status_code == 503
        valkey.start()
        wait_until(lambda: api.call("GET", "/readyz").ok, 30)
        assert api.register(email, headers=named("k")).status_code == 201
        assert len(smtp.to(email)) == 1


def test_a_503_that_stored_nothing_leaves_the_key_free(
    tmp_path: Path, valkey: Valkey, smtp: ScriptedSmtp, email: str
) -> None:
    """Redis refused the registration, and the mark with it: the repetition is carried out at once."""
    settings = {"REDIS_URL": valkey.url, "MAIL_SERVER": "127.0.0.1", "MAIL_PORT": str(smtp.port)}
    with gunicorn(tmp_path, settings) as server, valkey.client() as store:
        api = Api(server)
        for fault in REFUSALS.values():
            with fault(valkey, store):
                assert api.register(email, headers=named("k")).status_code == 503
                assert api.register(email, headers=named("k")).status_code == 503
        assert api.register(email, headers=named("k")).status_code == 201
        assert len(smtp.to(email)) == 1


def test_a_503_whose_registration_was_stored_is_answered_from_the_record(
    tmp_path: Path, valkey: Valkey, smtp: ScriptedSmtp, email: str
) -> None:
    """Redis was silent and then did what it had been told: 409 for five seconds, then 202. The mail goes
    out when the lease that nobody holds has ended."""
    settings = {
        "REDIS_URL": valkey.url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(smtp.port),
        "MAIL_TIMEOUT": "1",
        "WEB_CONCURRENCY": "1",
    }
    with gunicorn(tmp_path, settings) as server, valkey.client() as store:
        api = Api(server)
        assert api.register(f"un{email}").status_code == 201  # the script is in the cache
        with valkey.frozen():
            assert api.register(email, headers=named("k")).status_code == 503
        wait_until(lambda: kinds(store)["user"] == 2, 30, "Redis has done it")
        answer = answered(api, email)
        assert (answer.status_code, answer.json()["delivery"]) == (202, "pending")
        assert kinds(store)["number"] == 2
        wait_until(lambda: smtp.to(email), 40)
        assert len(smtp.to(email)) == 1
        assert api.register(email, headers=named("k")).content == answer.content
        assert api.verify(email, smtp.to(email)[0].number).status_code == 200


def running(api: Api, email: str) -> tuple[threading.Thread, list[requests.Response]]:
    """A first request, under way in a thread; its answer will be in the list."""
    answers: list[requests.Response] = []
    first = threading.Thread(target=lambda: answers.append(api.register(email, headers=named("k"))))
    first.start()
    return first, answers


def test_a_request_that_waits_long_for_its_mail_is_repeated_as_pending(
    tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, email: str, store: redis.Redis
) -> None:
    """After five seconds (made to pass here) the repetition is told 202; later 201, as the first."""
    smtp.script["content"] = gate = Gate()
    with gunicorn(tmp_path, settings) as server:
        api = Api(server)
        first, answers = running(api, email)
        gate.wait()
        age_mark(store, 6)
        repeated = api.register(email, headers=named("k"))
        assert (repeated.status_code, repeated.json()["delivery"]) == (202, "pending")
        gate.open()
        first.join()
        assert answers[0].status_code == 201
        assert api.register(email, headers=named("k")).json()["delivery"] == "sent"
    assert len(smtp.to(email)) == 1


def test_what_a_repetition_was_promised_is_not_taken_back(
    tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, email: str, store: redis.Redis
) -> None:
    """The mail server refuses the address after a repetition was told 202: both hear 202, and the look-up
    says that the mail failed."""
    smtp.script["rcpt"] = gate = Gate("550 5.1.1 No such user")
    with gunicorn(tmp_path, settings) as server:
        api = Api(server)
        first, answers = running(api, email)
        gate.wait()
        age_mark(store, 6)
        assert api.register(email, headers=named("k")).status_code == 202
        gate.open()
        first.join()
        assert answers[0].status_code == 202
        assert api.register(email, headers=named("k")).status_code == 202
        found = api.call("GET", f"/api/users/{answers[0].json()['id']}").json()
        assert (found["delivery"], found["mail_error"]) == ("failed", "recipient 550 5.1.1")


def test_a_refusal_that_redis_did_not_take_down_is_answered_from_the_record(
    tmp_path: Path, valkey: Valkey, smtp: ScriptedSmtp, email: str
) -> None:
    """The mail server refused the address and Redis the erasure: 503; a repetition is told what stands."""
    settings = {"REDIS_URL": valkey.url, "MAIL_SERVER": "127.0.0.1", "MAIL_PORT": str(smtp.port)}
    smtp.script["rcpt"] = gate = Gate("550 5.1.1 No such user")
    with gunicorn(tmp_path, settings) as server, valkey.client() as store:
        api = Api(server)
        first, answers = running(api, email)
        gate.wait()
        with REFUSALS["NOREPLICAS"](valkey, store):
            gate.open()
            first.join()
            assert answers[0].status_code == 503
        answer = answered(api, email)
        assert answer.status_code in (202, 422)  # the settling is repeated until the lease ends
        assert contradictions(store) == []
