"""Forks: a worker that forks goes on, its child has a state of its own, and every worker has a relay."""

import os
import signal
from pathlib import Path

import pytest
import redis
import requests

from tests.delivery.conftest import PRELOAD, combined
from tests.support.scan import kinds
from tests.support.servers import gunicorn
from tests.support.smtp import Gate, ScriptedSmtp, say
from tests.support.waiting import wait_until

ASYNC = {"Prefer": "respond-async"}
IN_HAND = 4
CHILD = "child@example.com"
SHIPPED = "gunicorn_worker.Worker"
KINDS = [SHIPPED, "gevent", "gthread", "sync"]
"""The worker of our gunicorn.conf.py, with it; gunicorn's own without it."""


@pytest.fixture
def settings(environment: dict[str, str], smtp: ScriptedSmtp, tmp_path: Path) -> dict[str, str]:
    return {
        **environment,
        "MAIL_PORT": str(smtp.port),
        "MAIL_DEFAULT_SENDER": "no-reply@example.com",
        "MAIL_TIMEOUT": "3",
        "ADDRESS_LIMIT": "",
        "MAILBOX_LIMIT": "",
        "FORK_REPORT": str(tmp_path / "report"),
    }


@pytest.mark.parametrize(
    ("kind", "way"), combined(KINDS, ["/fork/os", "/fork/multiprocessing"], ("gevent", "/fork/os"))
)
def test_a_worker_that_forks_goes_on_and_its_child_uses_none_of_its_sockets(
    kind: str,
    way: str,
    tmp_path: Path,
    settings: dict[str, str],
    smtp: ScriptedSmtp,
    store: redis.Redis,
) -> None:
    """Four mails wait for their 250 while the worker forks: each comes once and is settled by the worker. The
    child mails what it registers, over a connection of its own; the worker's relay tries a mail again."""
    with gunicorn(
        tmp_path,
        settings,
        *("-k", kind, "-w", "1", "--threads", "8"),
        application="tests.support.forking:app",
        own_configuration=kind == SHIPPED,
    ) as service:
        wait_until(lambda: kinds(store)["relay"] == 1, 30, "the relay is at work")
        smtp.script["content"] = gate = Gate(holds=IN_HAND)
        for number in range(IN_HAND):
            assert service.register(f"parent{number}@example.com", headers=ASYNC).status_code == 202
        gate.wait(IN_HAND)
        assert requests.post(f"{service.url}{way}", timeout=20).status_code == 204
        wait_until((tmp_path / "report").exists, 40, "the child has registered")
        gate.open()
        wait_until(lambda: kinds(store)["outbox"] == kinds(store)["sender"] == 0, 30, "all is settled")
        assert (tmp_path / "report").read_text() == "201"
        assert smtp.connections == IN_HAND + 1

        smtp.script["rcpt"] = say("450 4.2.1 Later")
        assert service.register("again@example.com").status_code == 202
        smtp.script.clear()
        smtp.wait_for("again@example.com", 1)
        assert requests.get(f"{service.url}/readyz", timeout=20).status_code == 200
        assert "Traceback" not in service.log
    recipients = [mail.recipient for mail in smtp.mails]
    expected = [*(f"parent{number}@example.com" for number in range(IN_HAND)), CHILD, "again@example.com"]
    assert sorted(recipients) == sorted(expected)


@pytest.mark.parametrize(("kind", "preload"), combined(KINDS, PRELOAD, ("gevent", ("--preload",))))
def test_every_worker_has_a_relay_and_a_preloading_master_has_none(
    kind: str,
    preload: tuple[str, ...],
    tmp_path: Path,
    settings: dict[str, str],
    smtp: ScriptedSmtp,
    store: redis.Redis,
) -> None:
    """Somebody sweeps; where its process is killed another worker does; while
    the workers are stopped nobody does."""
    with gunicorn(
        tmp_path,
        settings,
        *("-k", kind, "-w", "2", "--threads", "4", *preload),
        own_configuration=kind == SHIPPED,
    ) as service:
        wait_until(lambda: kinds(store)["relay"] == 1, 30, "a relay sweeps")
        for worker in service.workers():
            os.kill(worker, 19)
        wait_until(lambda: kinds(store)["relay"] == 0, 30, "none sweeps while the workers are stopped")
        store.flushall()
        for worker in service.workers():
            os.kill(worker, 9)
        wait_until(lambda: kinds(store)["relay"] == 1, 40, "a new worker's relay sweeps")
        assert service.stop() == 0
        assert "Traceback" not in service.log


@pytest.mark.parametrize(("kind", "_"), combined(["gevent", "gthread"], [""], ("gevent", "")))
def test_every_worker_has_a_relay_also_where_its_master_was_slow_and_began_one(
    kind: str, _: str, tmp_path: Path, settings: dict[str, str], store: redis.Redis
) -> None:
    """As where gunicorn has to wait for its port before it forks."""
    slow = ("--config", "python:tests.support.slow_start")
    with gunicorn(
        tmp_path, settings, *slow, "-k", kind, "-w", "1", "--preload", own_configuration=False
    ) as service:
        os.kill(service.process.pid, signal.SIGSTOP)
        store.flushall()
        wait_until(lambda: kinds(store)["relay"] == 1, 30, "a worker's relay sweeps")
        os.kill(service.process.pid, signal.SIGCONT)
        assert requests.get(f"{service.url}/readyz", timeout=20).status_code == 200
        assert service.stop() == 0
        assert "Traceback" not in service.log
