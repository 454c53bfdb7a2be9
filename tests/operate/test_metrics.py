"""/metrics, asked as Prometheus asks: what is counted, whatever serves, and whatever dies meanwhile."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import redis
import requests
from prometheus_client.parser import text_string_to_metric_families

from app.domain.number import SHARDS
from app.http.auth import digest
from app.repositories.census import Census
from app.repositories.keys import Field, keys_of, outbox_key
from app.repositories.sealing import Sealer
from app.services.monitoring import LOOK_AGAIN_S, Monitoring
from app.telemetry.metrics import DELIVERIES, Metrics, exposition
from tests.support.records import Records
from tests.support.servers import ROOT, Gunicorn, MailServer, Valkey, free_port, gunicorn
from tests.support.storage import storage_of
from tests.support.waiting import wait_until

Samples = dict[str, float]


def read(text: str) -> Samples:
    """Samples by name and labels: `cedula_deliveries_total{outcome="sent"}`."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def scraped(service: Gunicorn) -> Samples:
    """One scrape, on a connection of its own, so that any worker may answer."""
    answer = requests.get(f"{service.url}/metrics", timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return read(answer.text)


def latest(service: Gunicorn) -> Samples:
    """One scrape when every worker has told what it had counted until now."""
    now = time.time()
    folders = folders_of(service)
    wait_until(
        lambda: all(path.stat().st_mtime > now for folder in folders for path in folder.glob("*.json")), 10
    )
    return scraped(service)


def answers(route: str, method: str, status: int, caller: str = "") -> str:
    return f'cedula_requests_total{{caller="{caller}",method="{method}",route="{route}",status="{status}"}}'


# What is counted


def test_a_registration_is_counted_at_every_step(service: Gunicorn, mail_server: MailServer) -> None:
    """Request, store, candidates, mail, delivery; each once, by route and status."""
    service.register("ada@example.com")
    found = latest(service)
    assert found[answers("/api/users", "POST", 201)] == 1
    assert found['cedula_request_duration_seconds_count{route="/api/users"}'] == 1
    assert found["cedula_registration_duration_seconds_count"] == 1
    assert found["cedula_registration_candidates_sum"] == 1
    assert found["cedula_mail_duration_seconds_count"] == 1
    assert found['cedula_deliveries_total{outcome="sent"}'] == 1
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
        service.http.get(f"{service.url}/somewhere/secret-words", timeout=10)
        service.http.request("BREW", f"{service.url}/api/users", timeout=10)
        for turn in range(3):
            service.register(f"eve{turn}@example.com")
        latest(service)
        text = requests.get(f"{service.url}/metrics", timeout=10).text
    found = read(text)
    assert found['cedula_budgets_refused_total{budget="registrations"}'] == 1
    assert found['cedula_budgets_refused_total{budget="attempts"}'] == 1
    assert found['cedula_budgets_refused_total{budget="requests"}'] >= 1
    assert found['cedula_problems_total{problem="verification-failed"}'] == 1
    assert found[answers("none", "GET", 404)] == 1
    assert "secret-words" not in text
    assert "BREW" not in text


def test_nothing_personal_is_in_the_metrics(service: Gunicorn, mail_server: MailServer) -> None:
    """Neither address nor id, token or number; the id of a path stays out of the route."""
    answer = service.register("ada.lovelace@example.com", token="t0ken-of-ada")
    user_id = answer.json()["id"]
    service.http.get(f"{service.url}/api/users/{user_id}", timeout=10)
    (mail,) = mail_server.box.wait_for("ada.lovelace@example.com")
    latest(service)
    text = requests.get(f"{service.url}/metrics", timeout=10).text
    for personal in ("lovelace", "example.com", "t0ken", user_id, mail.number):
        assert personal not in text
    assert answers("/api/users/<user_id:user_id>", "GET", 200) in read(text)


def test_a_mail_server_that_is_down_shows(
    service: Gunicorn, mail_server: MailServer, store: redis.Redis
) -> None:
    """The breaker opens, mails are put off and owed; when it is back, the breaker closes and all is sent."""
    mail_server.stop()
    for turn in range(4):
        assert service.register(f"ada{turn}@example.com").status_code == 202
    wait_until(lambda: owed(scraped(service)) >= 4, 10, "the outbox shows")
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


BREAKER = "cedula_mail_breaker_open"
"""Told by each living worker."""


def breakers(found: Samples) -> float:
    return max(value for name, value in found.items() if name.startswith(BREAKER))


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
        later = wait_until(
            lambda: found if (found := scraped(service))["cedula_storage_up"] else None, 15, "Redis is back"
        )
        assert later["cedula_outbox_depth"] == 0


def test_the_metrics_need_a_key_like_the_api(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """Without one they are nobody's business; what is counted names the caller by its key's name."""
    with gunicorn(tmp_path, environment | {"API_KEYS": f"prometheus:{digest('cedula_key')}"}) as service:
        assert requests.get(f"{service.url}/metrics", timeout=10).status_code == 401
        headers = {"Authorization": "Bearer cedula_key"}
        assert requests.get(f"{service.url}/metrics", headers=headers, timeout=10).status_code == 200

        def counted() -> bool:
            found = read(requests.get(f"{service.url}/metrics", headers=headers, timeout=10).text)
            return {answers("/metrics", "GET", 200, "prometheus"), answers("/metrics", "GET", 401)} <= set(
                found
            )

        wait_until(counted, 10, "both are counted")


# Whatever serves


def several(service: Gunicorn, times: int = 8) -> list[Samples]:
    return [scraped(service) for _ in range(times)]


def test_two_workers_count_together(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """Whichever is asked, the sums are of both, a second later at most."""
    with gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "2"}) as service:
        for turn in range(20):
            requests.post(
                f"{service.url}/api/users",
                json={"email": f"ada{turn}@example.com", "token": "t"},
                timeout=10,
            )
        registered = answers("/api/users", "POST", 201)
        wait_until(lambda: all(found.get(registered) == 20 for found in several(service)), 10, "both")
        for found in several(service):
            assert {'cedula_mail_breaker_open{pid="1"}', 'cedula_mail_breaker_open{pid="2"}'} <= set(found)
            assert found['cedula_thread_restarts_total{thread="outbox-relay"}'] == 0
            assert found['cedula_thread_unwell{pid="2",thread="outbox-relay"}'] == 0


def test_a_scrape_never_tells_less_than_the_one_before(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """Two workers answer in turns, and are killed meanwhile: what was told once stands."""
    with gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "2"}) as service:
        told = 0.0
        for turn in range(40):
            if turn in (10, 25):
                service.kill_workers()
                wait_until(service.answers_again, 20, "it answers again")
            with contextlib.suppress(requests.RequestException):  # its worker was killed
                found = scraped(service)
                now = found.get(answers("/metrics", "GET", 200), 0.0)
                assert now >= told
                told = now
        assert told > 0


def test_what_one_worker_knows_of_the_mail_server_all_tell(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """One worker's breaker is open: asked a hundred times, /readyz says the same."""
    with gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "2"}) as service:
        mail_server.stop()
        for turn in range(4):  # on one connection, so by one worker
            assert service.register(f"ada{turn}@example.com").status_code == 202

        def told() -> set[str]:
            return {ready(service)["smtp"] for _ in range(100)}

        (state,) = wait_until(lambda: states if len(states := told()) == 1 and states != {"ok"} else None, 20)
        assert told() == {state}
        assert breakers(scraped(service)) == 1
        mail_server.start()
        wait_until(lambda: told() == {"ok"}, 40, "all tell that it is back")


def ready(service: Gunicorn) -> dict[str, str]:
    answer = requests.get(f"{service.url}/readyz", timeout=10)
    assert answer.status_code == 200
    found: dict[str, str] = answer.json()
    return found


@pytest.mark.parametrize("trouble", ["removed", "garbage"])
def test_a_folder_in_trouble_never_hurts(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer, trouble: str
) -> None:
    """It is removed, or what is in it is broken: requests are answered, and the workers share again."""
    with gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "2"}) as service:
        (folder,) = folders_of(service)
        wait_until(lambda: len(list(folder.glob("*.json"))) == 2, 10, "two snapshots")
        if trouble == "removed":
            shutil.rmtree(folder)
        for turn in range(10):
            if trouble == "garbage":
                for path in folder.glob("*.json"):
                    path.write_bytes((b"", b"{", b"[1]", b'{"pid": 1}')[turn % 4])
            ready(service)
            scraped(service)
            answer = requests.post(
                f"{service.url}/api/users", json={"email": f"ada{turn}@example.com", "token": "t"}, timeout=10
            )
            assert answer.status_code == 201
        registered = answers("/api/users", "POST", 201)
        wait_until(lambda: all(found.get(registered) == 10 for found in several(service)), 10, "both")


def test_a_folder_that_was_made_anew_keeps_the_counts_of_workers_that_die(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """It is removed, then another gunicorn starts on this machine, then one worker after the other is killed:
    nothing that was counted is lost or counted twice, and each worker knows of the other."""
    registered = answers("/api/users", "POST", 201)
    with gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "2"}) as service:

        def all_tell(count: int) -> bool:
            return all(
                found.get(registered) == count and sum(name.startswith(BREAKER) for name in found) == 2
                for found in several(service)
            )

        (folder,) = folders_of(service)
        wait_until(lambda: len(list(folder.glob("*.json"))) == 2, 10, "two snapshots")
        shutil.rmtree(folder)
        for turn in range(10):
            assert service.register(f"ada{turn}@example.com").status_code == 201
        wait_until(lambda: all_tell(10), 10, "both share again")
        shutil.rmtree(make_folder(folder.parent))
        for victim in service.workers():
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda gone=victim: len(service.workers()) == 2 and gone not in service.workers(), 20)
            wait_until(service.answers_again, 20, "it answers again")
            wait_until(lambda: all_tell(10), 10, "nothing is lost")
        assert len(list(folder.glob("*.json"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--preload",)], ids=["", "preload"])
def test_a_worker_that_dies_takes_no_counts_with_it(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer, arguments: tuple[str, ...]
) -> None:
    """Its successor goes on with its files: four deaths later the sums stand, and there are no more files."""
    with gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "2"}, *arguments) as service:
        for turn in range(6):
            requests.post(
                f"{service.url}/api/users",
                json={"email": f"ada{turn}@example.com", "token": "t"},
                timeout=10,
            )
        (folder,) = folders_of(service)
        wait_until(lambda: len(list(folder.glob("*.json"))) == 2, 10, "two snapshots")
        wait_until(
            lambda: all(found.get(answers("/api/users", "POST", 201)) == 6 for found in several(service))
        )
        for _ in range(2):
            before = set(service.workers())
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            wait_until(partial(all_new, service, before), 20, "two new workers")
            wait_until(service.answers_again, 20, "it answers again")
        assert len(list(folder.glob("*.json"))) == 2
        for found in several(service, 4):
            assert found[answers("/api/users", "POST", 201)] == 6


def all_new(service: Gunicorn, before: set[int]) -> bool:
    now = set(service.workers())
    return len(now) == len(before) and not now & before


def healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz", timeout=5).ok
    except requests.RequestException:
        return False


def folders_of(service: Gunicorn) -> list[Path]:
    """The metrics' folders that the master holds a lock on."""
    links = Path(f"/proc/{service.process.pid}/fd").iterdir()
    paths = {link.readlink() for link in links if link.is_dir()}
    return [path for path in paths if path.name.startswith("cedula-metrics-")]


MAKES_A_FOLDER = """
import os, runpy, signal, sys
if len(sys.argv) > 2:
    sys.addaudithook(lambda event, _: event == sys.argv[2] and os.kill(os.getpid(), signal.SIGKILL))
print(runpy.run_path("gunicorn.conf.py")["make_folder"](sys.argv[1]), flush=True)
"""


def make_folder(parent: Path, killed_at: str = "") -> str:
    """What a start of gunicorn made there. `killed_at`: the audit event at which it is killed."""
    command = [sys.executable, "-c", MAKES_A_FOLDER, str(parent), *([killed_at] if killed_at else [])]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ended.returncode == (-signal.SIGKILL if killed_at else 0), ended.stderr
    return ended.stdout.strip()


def test_a_start_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """Whenever it was killed: also between making the folder and locking it."""
    make_folder(tmp_path, killed_at="fcntl.flock")
    assert len(list(tmp_path.iterdir())) == 1
    make_folder(tmp_path)
    folder = make_folder(tmp_path)
    assert [str(path) for path in tmp_path.iterdir()] == [folder]


def test_what_is_no_folder_does_not_hold_up_a_start(tmp_path: Path) -> None:
    """Opening a FIFO waits for whoever writes into it, and anybody may make one in a shared place."""
    os.mkfifo(tmp_path / "cedula-metrics-fifo")
    (tmp_path / "cedula-metrics-file").touch()
    folder = make_folder(tmp_path)
    assert Path(folder).is_dir()
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
def test_a_reload_keeps_the_counts(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """SIGHUP reads the configuration again; the folder and what is in it stay."""
    with gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "1"}) as service:
        requests.post(f"{service.url}/api/users", json={"email": "ada@example.com", "token": "t"}, timeout=10)
        (folder,), before = folders_of(service), service.workers()
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: (now := service.workers()) and not set(now) & set(before), 40, "a new worker")
        wait_until(service.answers_again, 20, "it answers again")
        assert folders_of(service) == [folder]
        wait_until(lambda: scraped(service)[answers("/api/users", "POST", 201)] == 1, 10, "the count stands")


@pytest.mark.slow
def test_an_end_leaves_nothing_behind(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """The folder goes with gunicorn; that of one that was killed goes at the next start."""
    with gunicorn(tmp_path, environment) as killed:
        (left,) = folders_of(killed)
    assert left.exists()
    with gunicorn(tmp_path, environment) as service:
        assert not left.exists()
        (folder,) = folders_of(service)
        service.stop()
    assert not folder.exists()


def test_without_our_configuration_a_process_tells_what_it_counted(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """`gunicorn wsgi:app` elsewhere: one worker, no shared folder."""
    with gunicorn(tmp_path, environment, own_configuration=False) as service:
        service.register("ada@example.com")
        found = scraped(service)
        assert found[answers("/api/users", "POST", 201)] == 1
        assert found['cedula_mail_breaker_open{pid=""}'] == 0


# At what cost


class CountingGuard:
    """Is always ready, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def ready(self) -> None:
        self.asked += 1


def test_whoever_scrapes_often_gets_the_last_look_again(
    store: redis.Redis, monitoring: Callable[..., Monitoring]
) -> None:
    """A look at Redis serves for five seconds, however many ask."""
    now = [100.0]
    guard = CountingGuard()
    watched = monitoring(guard=guard, clock=lambda: now[0])
    for _ in range(50):
        watched.exposition()
    assert guard.asked == 1
    now[0] += LOOK_AGAIN_S
    watched.exposition()
    assert guard.asked == 2


@pytest.fixture
def monitoring(store: redis.Redis) -> Callable[..., Monitoring]:
    from app.domain.number import NumberGenerator
    from app.repositories.outbox import Outbox

    def build(guard: CountingGuard, clock: Callable[[], float] = time.monotonic) -> Monitoring:
        storage = storage_of(store)
        outbox, census = Outbox(storage, Sealer([]), 1000), Census(storage, Sealer([]))
        return Monitoring(Metrics(), guard, outbox, census, NumberGenerator(12), clock)  # type: ignore[arg-type]

    return build


def test_the_age_of_the_oldest_mail_is_that_of_its_registration(
    store: redis.Redis, monitoring: Callable[..., Monitoring]
) -> None:
    """However far its next try has been put off; an entry whose record is gone has none."""
    seconds, _ = store.time()
    keys = Records(store).keys("ada@example.com")
    store.hset(keys.user, mapping={Field.CREATED_MS: (int(seconds) - 3600) * 1000})
    store.zadd(keys.outbox, {keys.user_id: (int(seconds) + 900) * 1000})
    store.zadd(outbox_key(keys_of("a" * 26).shard), {"a" * 26: 1})
    found = read(monitoring(CountingGuard()).exposition().decode())
    assert found["cedula_outbox_depth"] == 2
    assert 3599 <= found["cedula_outbox_oldest_age_seconds"] <= 3605


def test_a_look_costs_the_same_however_much_is_owed(store: redis.Redis) -> None:
    """With 20,000 mails owed, at most 2,000 records are read, besides the thousand shards."""
    pipeline = store.pipeline(transaction=False)
    for number in range(20_000):
        shard = number % SHARDS
        pipeline.zadd(outbox_key(shard), {f"{number:026}": number})
    pipeline.execute()
    store.config_resetstat()
    assert Census(storage_of(store), Sealer([])).owed().depth == 20_000
    calls = {name: stat["calls"] for name, stat in store.info("commandstats").items()}
    assert calls["cmdstat_zcard"] == calls["cmdstat_zrange"] == SHARDS
    assert calls["cmdstat_hget"] <= 2000


def test_the_fill_is_never_told_too_low(store: redis.Redis, monitoring: Callable[..., Monitoring]) -> None:
    """Of what is counted in Redis: an upper bound for all numbers, and one for the fullest shard."""
    records = Records(store)
    for turn in range(300):
        keys = records.keys(f"ada{turn}@example.com")
        store.set(keys.user, "record")
        store.set(f"{keys.tag}:number:{turn:016}", keys.user_id)
    found = read(monitoring(CountingGuard()).exposition().decode())
    counted = Census(storage_of(store), Sealer([])).numbers_by_shard()
    assert counted.total() == 300
    overall = found['cedula_number_space_fill_ratio{scope="overall"}']
    assert overall == pytest.approx(300 / SHARDS / (9 * 10**7))
    assert found['cedula_number_space_fill_ratio{scope="fullest_shard"}'] > overall


def test_every_series_exists_before_its_first_event() -> None:
    """So that Prometheus sees the first one as a rise from 0."""
    found = read(exposition(Metrics().series(), []).decode())
    for outcome in DELIVERIES.values():
        assert found[f'cedula_deliveries_total{{outcome="{outcome}"}}'] == 0
    for budget in ("registrations", "attempts", "requests"):
        assert found[f'cedula_budgets_refused_total{{budget="{budget}"}}'] == 0
    assert len([name for name in found if re.match(r"cedula_problems_total\{", name)]) >= 15


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make its root unwritable")
def test_a_root_that_cannot_be_written_is_enough(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """As in the container: registrations and counts with nothing to write to but /dev/shm."""
    port = free_port()
    script = f"""
        mount --make-rprivate / && mount -o remount,bind,ro / || exit 9
        touch {ROOT} /tmp/written && exit 9
        exec {sys.executable} -B -m gunicorn --bind 127.0.0.1:{port} wsgi:app
    """
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "WEB_CONCURRENCY": "2", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: process.poll() is not None or healthy(url), 30, "it answers")
        if process.poll() == 9:
            pytest.skip("mounts are not allowed here")
        body = {"email": "ada@example.com", "token": "t"}
        assert requests.post(f"{url}/api/users", json=body, timeout=10).status_code == 201

        def both_tell() -> bool:
            found = read(requests.get(f"{url}/metrics", timeout=10).text)
            return (
                'cedula_mail_breaker_open{pid="2"}' in found
                and found.get(answers("/api/users", "POST", 201)) == 1
            )

        wait_until(both_tell, 10, "both workers' counts")
    finally:
        process.terminate()
        process.wait(40)
