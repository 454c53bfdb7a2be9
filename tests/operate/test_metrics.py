"""/metrics, asked as Prometheus asks: what is counted, whatever serves, and whatever dies meanwhile."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import requests

from app.directory.directory import digest
from tests.support.metrics import (
    Samples,
    answers,
    breakers,
    latest,
    read,
    ready,
    scraped,
    several,
)
from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn, settings_for
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]) -> Iterator[Gunicorn]:
    """A service with one worker, for tests that look at what is added."""
    with gunicorn(tmp_path_factory.mktemp("one"), shared_environment) as service:
        yield service


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]) -> Iterator[Gunicorn]:
    """The same with two workers; they may be killed."""
    settings = shared_environment | {"WEB_CONCURRENCY": "2"}
    with gunicorn(tmp_path_factory.mktemp("two"), settings) as service:
        yield service


def test_a_registration_is_counted_at_every_step(one: Gunicorn, store: redis.Redis) -> None:
    """Request, store, candidates, mail, delivery; each once, by route and status."""
    before = latest(one)
    one.register("ada@example.com")
    found = latest(one)
    for counter in (
        answers("/api/users", "POST", 201),
        'cedula_request_duration_seconds_count{route="/api/users"}',
        "cedula_registration_duration_seconds_count",
        "cedula_registration_candidates_sum",
        "cedula_mail_duration_seconds_count",
        'cedula_deliveries_total{outcome="sent"}',
    ):
        assert found[counter] - before.get(counter, 0.0) == 1, counter
    assert found["cedula_storage_up"] == 1
    assert found["cedula_outbox_depth"] == found["cedula_outbox_oldest_age_seconds"] == 0


def test_refusals_are_counted_by_kind(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """Each budget, and each problem; a path that nobody serves is not a label."""
    limits = {"ADDRESS_LIMIT": "1/hour", "VERIFY_LIMIT": "1/hour", "CLIENT_LIMIT": "6/hour"}
    with gunicorn(tmp_path, environment | limits) as service:
        service.register("ada@example.com")
        service.register("ada@example.com")
        number = mail_server.box.wait_for("ada@example.com")[0].number
        other = {"email": "bob@example.com", "number": number}
        assert service.post("/api/users/verify", other).status_code == 403
        assert service.post("/api/users/verify", other).status_code == 429
        service.http.get(f"{service.url}/somewhere/secret-words", timeout=20)
        service.http.request("BREW", f"{service.url}/api/users", timeout=10)
        for turn in range(3):
            service.register(f"eve{turn}@example.com")
        latest(service)
        text = requests.get(f"{service.url}/metrics", timeout=20).text
    found = read(text)
    assert found['cedula_budgets_refused_total{budget="registrations"}'] == 1
    assert found['cedula_budgets_refused_total{budget="attempts"}'] == 1
    assert found['cedula_budgets_refused_total{budget="requests"}'] >= 1
    assert found['cedula_problems_total{problem="verification-failed"}'] == 1
    assert found[answers("none", "GET", 404)] == 1
    assert "secret-words" not in text
    assert "BREW" not in text


def test_nothing_personal_is_in_the_metrics(one: Gunicorn, mailbox: MailServer, store: redis.Redis) -> None:
    """Neither address nor id, token or number; the id of a path stays out of the route."""
    answer = one.register("ada.lovelace@example.com", token="t0ken-of-ada")
    user_id = answer.json()["id"]
    one.http.get(f"{one.url}/api/users/{user_id}", timeout=20)
    (mail,) = mailbox.box.wait_for("ada.lovelace@example.com")
    latest(one)
    text = requests.get(f"{one.url}/metrics", timeout=20).text
    for personal in ("lovelace", "example.com", "t0ken", user_id, mail.number):
        assert personal not in text
    assert answers("/api/users/<user_id:user_id>", "GET", 200) in read(text)


def test_a_mail_server_that_is_down_shows(tmp_path: Path, valkey: Valkey, mail_server: MailServer) -> None:
    """The breaker opens, mails are put off and owed; when it is back, the breaker closes and all is sent."""
    with gunicorn(tmp_path, settings_for(valkey, mail_server)) as service:
        mail_server.stop()
        for turn in range(4):
            assert service.register(f"ada{turn}@example.com").status_code == 202
        wait_until(lambda: owed(scraped(service)) >= 4, 30, "the outbox shows")
        down = latest(service)
        assert breakers(down) == 1
        assert down['cedula_mail_faults_total{blame="server"}'] >= 3
        assert down['cedula_deliveries_total{outcome="put_off"}'] >= 3
        mail_server.start()
        wait_until(lambda: owed(scraped(service)) == 0, 30, "the outbox is empty")
        up = latest(service)
        assert breakers(up) == 0
        assert up['cedula_deliveries_total{outcome="sent"}'] == 4


def owed(found: Samples) -> float:
    return found["cedula_outbox_depth"]


def test_a_store_that_is_away_shows_and_the_rest_is_still_told(
    tmp_path: Path, environment: dict[str, str], valkey_server: Valkey, mail_server: MailServer
) -> None:
    """Also with CLIENT_LIMIT, which asks Redis before every request to the API."""
    settings = {"CLIENT_LIMIT": "1000/hour", "REDIS_TIMEOUT": "0.3"}
    with gunicorn(tmp_path, environment | settings) as service:
        service.register("ada@example.com")
        with valkey_server.frozen():
            found = latest(service)
            assert found["cedula_storage_up"] == 0
            assert "cedula_outbox_depth" not in found
            assert found[answers("/api/users", "POST", 201)] == 1
        wait_until(lambda: scraped(service)["cedula_storage_up"], 30, "Redis is back")
        later = scraped(service)
        assert later["cedula_outbox_depth"] == 0


def test_the_metrics_need_a_key_like_the_api(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """Without one they are nobody's business; what is counted names the caller by its key's name."""
    with gunicorn(tmp_path, environment | {"API_KEYS": f"prometheus:{digest('cedula_key')}"}) as service:
        assert requests.get(f"{service.url}/metrics", timeout=20).status_code == 401
        headers = {"Authorization": "Bearer cedula_key"}
        assert requests.get(f"{service.url}/metrics", headers=headers, timeout=20).status_code == 200

        def counted() -> bool:
            found = read(requests.get(f"{service.url}/metrics", headers=headers, timeout=20).text)
            return {answers("/metrics", "GET", 200, "prometheus"), answers("/metrics", "GET", 401)} <= set(
                found
            )

        wait_until(counted, 30, "both are counted")


def test_two_workers_count_together(two: Gunicorn, store: redis.Redis) -> None:
    """Whichever is asked, the sums are of both, a second later at most."""
    registered = answers("/api/users", "POST", 201)
    before = scraped(two).get(registered, 0.0)
    for turn in range(20):
        requests.post(
            f"{two.url}/api/users",
            json={"email": f"ada{turn}@example.com", "token": "t"},
            timeout=10,
        )
    wait_until(lambda: all(found.get(registered) == before + 20 for found in several(two)), 30, "both")
    for found in several(two):
        assert {'cedula_mail_breaker_open{pid="1"}', 'cedula_mail_breaker_open{pid="2"}'} <= set(found)
        assert found['cedula_thread_restarts_total{thread="outbox-relay"}'] == 0
        assert found['cedula_thread_unwell{pid="2",thread="outbox-relay"}'] == 0


def test_a_scrape_never_tells_less_than_the_one_before(two: Gunicorn, store: redis.Redis) -> None:
    """Two workers answer in turns, and are killed meanwhile: what was told once stands."""
    told = 0.0
    for turn in range(40):
        if turn in (10, 25):
            two.kill_workers()
            wait_until(two.answers_again, 30, "it answers again")
        with contextlib.suppress(requests.RequestException):  # its worker was killed
            found = scraped(two)
            now = found.get(answers("/metrics", "GET", 200), 0.0)
            assert now >= told
            told = now
    assert told > 0


def test_what_one_worker_knows_of_the_mail_server_all_tell(
    two: Gunicorn, mailbox: MailServer, store: redis.Redis
) -> None:
    """One worker's breaker is open: asked a hundred times, /readyz says the same."""
    mailbox.stop()
    for turn in range(4):  # on one connection, so by one worker
        assert two.register(f"ada{turn}@example.com").status_code == 202

    def told() -> set[str]:
        return {ready(two)["smtp"] for _ in range(100)}

    (state,) = wait_until(lambda: states if len(states := told()) == 1 and states != {"ok"} else set(), 30)
    assert told() == {state}
    assert breakers(scraped(two)) == 1
    mailbox.start()
    wait_until(lambda: told() == {"ok"}, 40, "all tell that it is back")


def test_without_our_configuration_a_process_tells_what_it_counted(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """`gunicorn wsgi:app` elsewhere: one worker, no shared folder."""
    with gunicorn(tmp_path, environment, own_configuration=False) as service:
        service.register("ada@example.com")
        found = scraped(service)
        assert found[answers("/api/users", "POST", 201)] == 1
        assert found['cedula_mail_breaker_open{pid=""}'] == 0
