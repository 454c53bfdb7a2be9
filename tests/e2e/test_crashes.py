"""kill -9, of workers and of Valkey: what was acknowledged is there, and nothing is half there."""

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

import pytest
import redis
import requests

from tests.support.problems import assert_problem
from tests.support.records import Records
from tests.support.scan import contradictions, kinds
from tests.support.servers import Gunicorn, MailServer, Valkey, settings_for
from tests.support.waiting import wait_until

THREADS = 16
KILLS = 4
LEASE_S = 7
"""Of a mail time-out of 1 s."""


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """Two workers; an address may register again and again, and a dead sender's lease ends soon."""
    return environment | {
        "ADDRESS_LIMIT": "",
        "MAILBOX_LIMIT": "",
        "MAIL_TIMEOUT": "1",
        "WEB_CONCURRENCY": "2",
    }


def kill_workers(service: Gunicorn, acknowledged: list[str], people: int) -> None:
    """Kills a worker KILLS times, each at a random moment of the registrations."""

    def so_many(moment: int) -> bool:
        return len(acknowledged) >= moment

    for moment in sorted(random.sample(range(people), KILLS)):
        wait_until(partial(so_many, moment), 60, "registrations go on")
        os.kill(wait_until(lambda: random.sample(service.workers(), 1), 10)[0], signal.SIGKILL)


def register_until_acknowledged(service: Gunicorn, address: str) -> None:
    """A client that does not know what became of its request asks again."""

    def acknowledged() -> bool:
        try:
            return service.register(address, token=f"token of {address}").status_code in (201, 202)
        except requests.RequestException:  # its worker was killed
            return False

    wait_until(acknowledged, 30, "a registration is acknowledged")


@pytest.mark.parametrize(
    ("rounds", "people"),
    [(1, 150), pytest.param(5, 500, marks=[pytest.mark.slow, pytest.mark.timeout(300)])],
)
def test_a_killed_worker_leaves_nothing_half_done_and_no_mail_unsent(
    service: Gunicorn, mail_server: MailServer, store: redis.Redis, rounds: int, people: int
) -> None:
    """Every record has exactly its one number, every number its record, every person the live number."""
    for one in range(rounds):
        acknowledged: list[str] = []

        def register(address: str, acknowledged: list[str] = acknowledged) -> None:
            register_until_acknowledged(service, address)
            acknowledged.append(address)

        with ThreadPoolExecutor(THREADS + 1) as pool:
            killing = pool.submit(kill_workers, service, acknowledged, people)
            list(pool.map(register, [f"person{one}-{person}@example.com" for person in range(people)]))
            killing.result()
        assert contradictions(store) == []
        assert kinds(store)["user"] == kinds(store)["number"] == (one + 1) * people

    wait_until(lambda: not kinds(store)["outbox"], 4 * LEASE_S, "every mail was accepted")
    last_mail = {mail.recipient: mail for mail in mail_server.box.mails}
    records = Records(store)
    wrong = [address for address, mail in last_mail.items() if mail.number != records.number_of(address)]
    assert len(last_mail) == rounds * people
    assert wrong == []


@dataclass
class Clients:
    """Clients that register new addresses until they are told to stop."""

    service: Gunicorn
    stop: Event
    acknowledged: list[str]
    refused: list[int]
    slowest_s: float = 0.0

    def work(self, client: int) -> None:
        number = 0
        while not self.stop.is_set():
            address = f"client{client}-{number}@example.com"
            number += 1
            began = time.monotonic()
            status = self.service.register(address, token=f"token of {address}").status_code
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if status in (201, 202):
                self.acknowledged.append(address)
            else:
                self.refused.append(status)
                self.stop.wait(0.02)


def test_a_killed_valkey_comes_back_with_every_registration_that_was_acknowledged(
    tmp_path: Path, valkey: Valkey, mail_server: MailServer
) -> None:
    """While it is away: 503 within 3 s. Afterwards: 201 again, by itself."""
    service = Gunicorn(tmp_path, settings_for(valkey, mail_server) | {"MAIL_TIMEOUT": "1"})
    clients = Clients(service, Event(), [], [])
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            working = [pool.submit(clients.work, client) for client in range(THREADS)]
            try:
                wait_until(lambda: len(clients.acknowledged) >= 100, 30, "100 registrations")
                valkey.kill()
                wait_until(lambda: len(clients.refused) >= 2 * THREADS, 30, "refusals")
                answer = service.register("ada@example.com")
                assert_problem(answer, 503, "storage-unavailable")
                assert answer.headers["Retry-After"].isdigit()
                assert requests.get(f"{service.url}/readyz", timeout=20).status_code == 503
                assert requests.get(f"{service.url}/healthz", timeout=20).status_code == 200
                valkey.start()
                before = len(clients.acknowledged)
                wait_until(lambda: len(clients.acknowledged) >= before + 100, 30, "100 more registrations")
            finally:
                clients.stop.set()
            for work in working:
                work.result()
        assert requests.get(f"{service.url}/readyz", timeout=20).status_code == 200
        assert set(clients.refused) == {503}
        assert clients.slowest_s < 10  # one time-out of 2 s, not those of sixteen after one another
        with valkey.client() as store:
            records = Records(store)
            stored = {address: records.of(address) for address in clients.acknowledged}
            assert [address for address, record in stored.items() if record is None] == []
            assert all(record.token == f"token of {address}" for address, record in stored.items() if record)
            wait_until(lambda: not kinds(store)["outbox"], 4 * LEASE_S, "every mail was accepted")
            assert contradictions(store) == []
    finally:
        service.kill()
