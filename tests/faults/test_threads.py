"""Relay and senders live on, whatever happens in them; readiness names one that does not."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from tests.delivery.conftest import Serve, Service, serve, smtp
from tests.support.faults.redis import REFUSALS
from tests.support.scan import contradictions, kinds
from tests.support.servers import ROOT, Valkey, gunicorn
from tests.support.smtp import Gate, ScriptedSmtp, say
from tests.support.waiting import wait_until

__all__ = ["serve", "smtp"]  # fixtures

ASYNC = {"Prefer": "respond-async"}
ADA = "ada.thread@example.com"
RELAY, SENDER, TRIAL = "outbox-relay", "mail-sender", "mail-trial"


class Killed(BaseException):
    """As gevent's GreenletExit: no Exception, so nothing that means to go on catches it."""


def type_name(error: object) -> str:
    return type(error).__name__


def fails_once(part: Any, method: str, error: BaseException) -> threading.Event:
    """The next call of a part's method raises; later ones work. The event tells that it has happened."""
    happened = threading.Event()
    usual = getattr(part, method)

    def call(*args: Any, **more: Any) -> Any:
        if not happened.is_set():
            happened.set()
            raise error
        return usual(*args, **more)

    setattr(part, method, call)
    return happened


def deaths(service: Service) -> Counter[str]:
    found: Counter[str] = Counter()
    for thread in service.container.messaging.threads:
        found[thread.name] += thread.deaths
    return found


def ready(service: Service) -> Any:
    return service.app.test_client().get("/readyz")


def assert_delivered(service: Service, smtp: ScriptedSmtp, store: redis.Redis, *addresses: str) -> None:
    """Each address has its number, nothing is owed, and the threads are at work."""
    for address in addresses:
        service.wait_for_delivery(address, "sent", 20)
        assert smtp.to(address)[-1].number == service.records.number_of(address)
    wait_until(lambda: kinds(store)["outbox"] == kinds(store)["sender"] == 0, 30)
    assert contradictions(store) == []
    assert all(thread.alive for thread in service.container.messaging.threads if thread.name != TRIAL)


@pytest.mark.parametrize("error", [Killed(), SystemExit(), MemoryError()], ids=type_name)
def test_a_relay_that_dies_is_named_by_readiness_and_lives_again(
    error: BaseException, serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """503 with its name; it is started again and counted, and finds what is due."""
    service = serve(smtp)
    assert ready(service).status_code == 200
    died = fails_once(service.container.outbox, "hold_relay", error)
    assert died.wait(10)
    wait_until(lambda: ready(service).status_code == 503, 30, "readiness tells")
    answer = ready(service).json
    assert (answer["type"], answer["threads"]) == ("/problems/not-ready", [RELAY])
    assert (answer["redis"], answer["smtp"]) == ("ok", "ok")
    assert deaths(service)[RELAY] == 1
    smtp.script["rcpt"] = say("450 4.2.1 Later")
    assert service.register(ADA)[0].status_code == 202
    smtp.script.clear()
    assert_delivered(service, smtp, store, ADA)


@pytest.mark.parametrize("error", [Killed(), SystemExit()], ids=type_name)
def test_a_sender_that_dies_answers_its_request_and_lives_again(
    error: BaseException, serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """202 at once; 503 by its name; the mail goes out when the lease has ended, and the bound stays."""
    service = serve(smtp, mail_connections=1)
    died = fails_once(service.container.outbox, "settle", error)
    assert service.register(ADA)[0].status_code == 202
    assert died.is_set()
    answer = ready(service)
    assert (answer.status_code, answer.json["threads"]) == (503, [SENDER])
    assert deaths(service)[SENDER] == 1
    assert_delivered(service, smtp, store, ADA)
    assert service.register("next@example.com")[0].status_code == 201
    assert len(smtp.open_connections) == 1


def test_a_mail_that_cannot_be_made_kills_nobody(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """An error that nobody foresaw is one mail's: it is tried again, and readiness stays."""
    service = serve(smtp)
    fails_once(service.container.outbox, "settle", ValueError("x"))
    assert service.register(ADA)[0].status_code == 202
    assert ready(service).status_code == 200
    assert_delivered(service, smtp, store, ADA)
    assert deaths(service)[SENDER] == 0


def test_what_a_dying_sender_was_just_handed_goes_to_another(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """Many die while they rest and work, and every mail goes out."""
    service = serve(smtp, mail_timeout_s=0.2)
    addresses = [f"dying{number}@example.com" for number in range(20)]
    for number, address in enumerate(addresses):
        if number % 4 == 0:
            fails_once(service.container.outbox, "settle", Killed())
        assert service.register(address, headers=ASYNC)[0].status_code == 202
    assert_delivered(service, smtp, store, *addresses)
    assert len(service.container.messaging.threads) <= 1 + 4


@pytest.mark.parametrize("refusal", REFUSALS)
def test_threads_live_on_while_redis_refuses_writes(refusal: str, valkey: Valkey, smtp: ScriptedSmtp) -> None:
    """A mail is under way when it begins; afterwards it is settled, nobody died, and mails go on."""
    service = Service(valkey.url, smtp, mail_timeout_s=3.0)
    store = valkey.client()
    try:
        smtp.script["content"] = gate = Gate(holds=1)
        assert service.register(ADA, headers=ASYNC)[0].status_code == 202
        gate.wait()
        with REFUSALS[refusal](valkey, store):
            gate.open()
            wait_until(lambda: ready(service).json["type"] == "/problems/storage-unavailable", 30)
            assert service.register("refused@example.com")[0].status_code == 503
            threading.Event().wait(1.0)  # several ticks of the relay, and settlings
        wait_until(lambda: ready(service).status_code == 200, 30, "ready again")
        assert service.register("after@example.com")[0].status_code == 201
        assert_delivered(service, smtp, store, ADA, "after@example.com")
        assert deaths(service).total() == 0
        assert len(smtp.to(ADA)) == 1
    finally:
        service.stop()
        store.close()


@pytest.mark.parametrize("reply", ["450 4.2.1 Later", "550 5.7.1 Relaying denied", "421 4.3.2 Shutting down"])
def test_no_thread_dies_of_a_line_that_cannot_be_written(
    reply: str, tmp_path: Path, environment: dict[str, str], smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """stdout is a full disk while the mail server puts everything off or breaks off; every mail goes out."""
    smtp.script["rcpt"] = say(reply)
    report = tmp_path / "report"
    addresses = [f"full{number}@example.com" for number in range(20)]
    own = {**environment, "MAIL_PORT": str(smtp.port), "MAIL_TIMEOUT": "1", "PATH": os.environ["PATH"]}
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.support.mailing", str(report), *addresses],
        cwd=ROOT,
        env=own,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: smtp.heard["rcpt"] >= 3, 30, "mails are put off")
        smtp.script.clear()
        wait_until(lambda: len({mail.recipient for mail in smtp.mails}) == 20, 40, "every mail comes")
        wait_until(lambda: kinds(store)["outbox"] == 0, 30)
        wait_until(report.exists, 30, "the program reports")
        found = json.loads(report.read_text())
        assert (found["unwell"], sum(found["deaths"].values())) == ([], 0)
    finally:
        program.communicate(timeout=20)


@pytest.mark.parametrize(
    ("part", "name"), [("relay", RELAY), ("sender", SENDER), ("watchdog", "redis-watchdog")]
)
def test_a_worker_of_gunicorn_says_which_thread_has_died_and_mails_on(
    part: str, name: str, tmp_path: Path, environment: dict[str, str], smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """gevent, our own configuration: a greenlet is killed; 503 by its name; every mail goes out."""
    own = {**environment, "MAIL_PORT": str(smtp.port), "MAIL_TIMEOUT": "1"}
    with gunicorn(tmp_path, own, "--workers", "1", application="tests.support.dying:app") as service:
        assert requests.get(f"{service.url}/readyz", timeout=20).status_code == 200
        assert requests.post(f"{service.url}/kill/{part}", timeout=20).status_code == 204
        if part == "sender":
            assert service.register(ADA).status_code == 202

        def tells() -> bool:
            answer = requests.get(f"{service.url}/readyz", timeout=20)
            return answer.status_code == 503 and answer.json()["threads"] == [name]

        wait_until(tells, 30, "readiness names it")
        assert service.register("next@example.com").status_code in (201, 202)
        wait_until(lambda: kinds(store)["outbox"] == 0, 30, "every mail goes out")
        wait_until(lambda: "thread_died" in service.log, 30, "the log tells")
    expected = {"next@example.com"} | ({ADA} if part == "sender" else set())
    assert {mail.recipient for mail in smtp.mails} == expected
