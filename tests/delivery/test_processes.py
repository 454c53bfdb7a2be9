"""Delivery where processes matter: gunicorn and its workers, shutdown, backlogs, what idleness costs."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.delivery.conftest import PRELOAD, Serve, combined
from tests.support.scan import contradictions, kinds
from tests.support.servers import ROOT, Gunicorn, gunicorn
from tests.support.smtp import Conversation, Gate, ScriptedSmtp, late
from tests.support.waiting import wait_until

ASYNC = {"Prefer": "respond-async"}
WORKERS = ["sync", "gthread", "gevent", "gunicorn_worker.Worker"]


@pytest.fixture
def settings(environment: dict[str, str], smtp: ScriptedSmtp) -> dict[str, str]:
    return {**environment, "MAIL_PORT": str(smtp.port), "MAIL_DEFAULT_SENDER": "no-reply@example.com"}


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def register_all(
    service: Gunicorn, addresses: list[str], clients: int, **more: Any
) -> list[tuple[int, float]]:
    """Status and seconds of each."""

    def one(address: str) -> tuple[int, float]:
        began = time.monotonic()
        return service.register(address, **more).status_code, time.monotonic() - began

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(one, addresses))


def assert_each_once(smtp: ScriptedSmtp, addresses: list[str]) -> None:
    assert Counter(mail.recipient for mail in smtp.mails) == Counter(addresses)


@pytest.mark.parametrize(
    ("kind", "preload"), combined(WORKERS, PRELOAD, ("gunicorn_worker.Worker", ("--preload",)))
)
def test_every_kind_of_worker_relays_and_finishes_what_it_has_in_hand(
    kind: str,
    preload: tuple[str, ...],
    tmp_path: Path,
    settings: dict[str, str],
    smtp: ScriptedSmtp,
    store: redis.Redis,
) -> None:
    """With gunicorn's own defaults, preloaded or not; a worker that dies is replaced and its mails go out."""
    with gunicorn(
        tmp_path,
        {**settings, "MAIL_TIMEOUT": "1"},
        *("-k", kind, "-w", "2", "--threads", "4", *preload),
        own_configuration=False,
    ) as service:
        assert service.register("first@example.com").status_code == 201
        smtp.script["content"] = gate = Gate()
        service.register("killed@example.com", headers=ASYNC)
        gate.wait()
        before = set(service.workers())
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        gate.open()
        smtp.script["content"] = late(0.7)
        wait_until(lambda: len(set(service.workers()) - before) == 2, 30, "new workers")
        wait_until(service.answers_again, 30, "it answers again")
        wait_until(lambda: kinds(store)["outbox"] == 0, 40, "the relay found it")
        service.register("last@example.com", headers=ASYNC)
        wait_until(lambda: smtp.contents and b"last@" in smtp.contents[-1], 30)
        assert service.stop() == 0
        assert len(smtp.to("last@example.com")) == 1
        assert kinds(store)["outbox"] == kinds(store)["sender"] == kinds(store)["relay"] == 0
        assert "Traceback" not in service.log


def test_at_a_shutdown_mails_in_hand_are_finished_and_the_rest_given_back(
    tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """Two are being sent, two wait for a connection: those are due at once for whoever comes next."""
    smtp.script["content"] = gate = Gate()
    addresses = [f"down{number}@example.com" for number in range(4)]
    own = {**settings, "MAIL_TIMEOUT": "3", "MAIL_CONNECTIONS": "2"}
    with gunicorn(tmp_path, own, "--workers", "1") as service:
        answers = register_all(service, addresses, clients=4)
        assert {status for status, _ in answers} == {202}
        assert kinds(store)["sender"] == 4
        service.process.terminate()
        wait_until(lambda: kinds(store)["sender"] == 2, 30, "two are given back")
        gate.open()
        assert service.process.wait(40) == 0
    assert len(smtp.mails) == 2
    assert kinds(store)["sender"] == 0
    now_ms = time.time() * 1000
    boxes = list(store.scan_iter(match="*:outbox"))
    assert sum(store.zcard(box) for box in boxes) == 2
    assert sum(store.zcount(box, "-inf", now_ms) for box in boxes) == 2


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.timeout(180)
def test_with_the_mail_server_away_everybody_is_answered_and_every_mail_comes_once(
    count: int, tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """All 202, at once when the breaker is open; the server comes back: each mail once, within a minute."""
    smtp.stop()
    addresses = [f"away{number}@example.com" for number in range(count)]
    with gunicorn(tmp_path, settings, "--workers", "2") as service:
        answers = register_all(service, addresses, clients=8)
        assert {status for status, _ in answers} == {202}
        assert max(took for _, took in answers) < 10  # nobody waited for MAIL_TIMEOUT
        smtp.start()
        began = time.monotonic()
        wait_until(lambda: len(smtp.mails) >= count, 60, "all mails within a minute")
        wait_until(lambda: kinds(store)["outbox"] == 0, 40)
        print(f"{count} mails {time.monotonic() - began:.1f} s after the server came back")  # noqa: T201
    assert_each_once(smtp, addresses)
    assert contradictions(store) == []


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(240)
def test_a_backlog_of_mails_that_nobody_waits_for_drains_at_full_speed(
    count: int, tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """One process, 100 ms a mail: all 32 connections are busy; a request that waits overtakes; each once."""
    busy: set[Conversation] = set()
    most = 0
    going = threading.Event()

    async def takes_a_while(conversation: Conversation, usual: str) -> str:
        nonlocal most
        busy.add(conversation)
        most = max(most, len(busy))
        while not going.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        busy.discard(conversation)
        return usual

    smtp.script["content"] = takes_a_while
    addresses = [f"async{number}@example.com" for number in range(count)]
    with gunicorn(tmp_path, settings, "--workers", "1") as service:
        answers = register_all(service, addresses, clients=16, headers=ASYNC)
        assert {status for status, _ in answers} == {202}
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(service.register, "waits@example.com")
            began = time.monotonic()
            going.set()
            assert waits.result(30).status_code == 201
        assert len(smtp.mails) < count
        wait_until(lambda: len(smtp.mails) == count + 1, 120, "all are mailed")
        took = time.monotonic() - began
        print(f"{count} mails in {took:.1f} s, {count / took:.0f} a second of 320 possible")  # noqa: T201
        assert most == 32
    assert_each_once(smtp, [*addresses, "waits@example.com"])


@pytest.mark.slow
def test_with_few_connections_nobody_gets_an_error_or_waits_longer_than_the_time_out(
    tmp_path: Path, settings: dict[str, str], smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """64 clients, 2 x 2 connections, 200 ms a mail, 1 s: 201 or 202, and every mail comes once."""
    smtp.script["content"] = late(0.2)
    addresses = [f"few{number}@example.com" for number in range(150)]
    with gunicorn(
        tmp_path, {**settings, "MAIL_TIMEOUT": "1", "MAIL_CONNECTIONS": "2"}, "--workers", "2"
    ) as service:
        answers = register_all(service, addresses, clients=64)
        assert {status for status, _ in answers} <= {201, 202}
        assert max(took for _, took in answers) < 10
        assert smtp.connections <= 4
        wait_until(lambda: len(smtp.mails) >= len(addresses), 60)
        wait_until(lambda: kinds(store)["outbox"] == 0, 40)
    assert_each_once(smtp, addresses)


def test_many_mails_at_once_start_as_many_senders(serve: Serve, smtp: ScriptedSmtp) -> None:
    """20 requests at the same moment, 20 connections: nobody waits behind another's mail."""
    smtp.script["content"] = gate = Gate()
    service = serve(smtp, mail_connections=20, mail_timeout_s=20.0)
    with ThreadPoolExecutor(20) as pool:
        answers = pool.map(lambda number: service.register(f"burst{number}@example.com"), range(20))
        gate.wait(20)
        gate.open()
        assert {answer.status_code for answer, _ in answers} == {201}


@pytest.fixture
def idle(tmp_path: Path, settings: dict[str, str]) -> Iterator[Gunicorn]:
    with gunicorn(tmp_path, settings, "--workers", "2") as service:
        service.register("idle@example.com")
        yield service


@pytest.mark.slow
def test_an_idle_service_costs_next_to_nothing(idle: Gunicorn, store: redis.Redis) -> None:
    """Two workers, a minute: under 100 commands a second for Redis, under 1 % of a core for each process."""
    time.sleep(15)  # the first sweep looks at everything at once
    pids = [idle.process.pid, *idle.workers()]
    used = [cpu_s(pid) for pid in pids]
    commands = store.info("stats")["total_commands_processed"]
    time.sleep(60)
    a_second = (store.info("stats")["total_commands_processed"] - commands) / 60
    shares = [(cpu_s(pid) - before) / 60 for pid, before in zip(pids, used, strict=True)]
    print(f"{a_second:.1f} commands a second; CPU {[f'{share:.2%}' for share in shares]}")  # noqa: T201
    assert a_second < 100
    assert max(shares) < 0.01


def test_the_flask_command_starts_no_relay(
    settings: dict[str, str], smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """`flask --app wsgi outbox list`: what is due stays due, and stdout holds the list alone."""
    ended = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "outbox", "list"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 0, ended.stderr
    assert re.fullmatch(r"id\tdelivery\tattempts\tage\tdue\treason\n", ended.stdout)
    assert kinds(store)["relay"] == 0
