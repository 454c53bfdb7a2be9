"""Where events go, when that ends, and when it begins again. Each test has a process of its own."""

import ipaddress
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.api.conftest import Api
from tests.api.events.conftest import FIRST_RETRY_S, MACHINE_S, Person, address, registered
from tests.support.receivers import HANGS, Receiver, Reply, secrets_of
from tests.support.reloading import reload, wait_for_workers
from tests.support.servers import Gunicorn, gunicorn, stopping
from tests.support.smtp import ScriptedSmtp
from tests.support.tenants import key_of, services_file
from tests.support.waiting import wait_until

WORKERS = 2

Told = Callable[..., dict[str, str]]


@pytest.fixture
def told(
    tmp_path: Path, environment_without_services: dict[str, str], smtp: ScriptedSmtp, store: redis.Redis
) -> Told:
    """The settings of a process with these tables."""

    def settings(**tables: dict[str, Any]) -> dict[str, str]:
        file = services_file(tmp_path, **tables)
        return environment_without_services | {"SERVICES_FILE": str(file), "WEB_CONCURRENCY": str(WORKERS)}

    return settings


def wait_for_a_retry(server: Gunicorn, service: str, receiver: Receiver) -> None:
    """Until an event of a service whose receiver did not take it has been tried again."""
    receiver.says(service, Reply(500))
    (user_id,) = registered(server, service, 1)
    receiver.wait_for(user_id, "sent", timeout_s=FIRST_RETRY_S + MACHINE_S)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--preload",)], ids=["", "preload"])
def test_410_stops_the_events_of_a_service_until_a_reload(
    tmp_path: Path, told: Told, receiver: Receiver, other: str, another: str, arguments: tuple[str, ...]
) -> None:
    """In every worker, and in one that takes the place of a dead one. What waits is dropped; other services'
    events go on."""
    settings = told(**{name: receiver.table(name, test=True) for name in (other, another)})
    with gunicorn(tmp_path, settings, *arguments) as server:
        wait_for_workers(server, WORKERS)
        receiver.says(other, then=Reply(500))
        registered(server, other, 6)
        wait_until(lambda: receiver.attempts(other), 5, "they are tried")
        receiver.says(other, then=Reply(410))
        wait_until(lambda: receiver.attempts(other)[-1].status == 410, 30, "the service is gone")
        wait_for_a_retry(server, another, receiver)
        attempts = receiver.attempts(other)

        registered(server, other, 12)
        for user_id in registered(server, another, 12):
            receiver.wait_for(user_id, "sent")
        wait_for_a_retry(server, another, receiver)
        assert receiver.attempts(other) == attempts

        receiver.says(other)
        server.kill_workers()
        wait_until(server.answers_again, 30, "it answers again")
        wait_for_workers(server, WORKERS)
        registered(server, other, 12)
        wait_for_a_retry(server, another, receiver)
        assert receiver.attempts(other) == attempts

        reload(server, WORKERS)
        users = registered(server, other, 12)
        for user_id in users:
            receiver.wait_for(user_id, "sent")
        wait_for_a_retry(server, another, receiver)
        assert {receipt.user_id for receipt in receiver.taken(other)} == {*users}


@pytest.mark.slow
def test_what_waits_outlives_the_process(
    tmp_path: Path, told: Told, receiver: Receiver, smtp: ScriptedSmtp, other: str, another: str
) -> None:
    """A receiver that hangs does not keep it from ending."""
    settings = told(**{name: receiver.table(name, test=True) for name in (other, another)})
    receiver.says(other, then=Reply(500))
    receiver.says(another, then=HANGS)
    with gunicorn(tmp_path, settings) as server:
        people = [Person(Api(server, key=key_of(name)), smtp, address()) for name in [other, another] * 3]
        for person in people:
            person.registers()
            person.verifies()
        wait_until(lambda: receiver.attempts(other) and receiver.attempts(another), 10, "they are tried")
        assert server.stop() == 0
    receiver.says(other)
    receiver.says(another)
    with gunicorn(tmp_path, settings):
        for person in people:
            receiver.wait_for(person.id, "sent", "verified", timeout_s=40)


class Listener:
    """Counts connections, and closes each."""

    def __init__(self, host: str) -> None:
        self.connections = 0
        self._socket = socket.create_server((host, 0))
        self.url = f"https://{host}:{self._socket.getsockname()[1]}/events"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


def private_address() -> str:
    """One of this machine, other than loopback; empty where it has none."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("10.255.255.255", 9))  # sends nothing
        except OSError:
            return ""
        found: str = probe.getsockname()[0]
    ip = ipaddress.ip_address(found)
    return found if ip.is_private and not ip.is_loopback else ""


def test_a_private_address_is_connected_to_only_where_the_file_allows_it(tmp_path: Path, told: Told) -> None:
    """Not even once; the registrations go on."""
    host = private_address()
    if not host:
        pytest.skip("this machine has no such address")
    with stopping(Listener(host)) as closed, stopping(Listener(host)) as allowed:
        tables: dict[str, dict[str, Any]] = {
            "closed": {"events_url": closed.url, "events_secrets": secrets_of("closed"), "test": True},
            "allowed": {"events_url": allowed.url, "events_secrets": secrets_of("allowed"), "test": True},
        }
        tables["allowed"]["events_private"] = True
        with gunicorn(tmp_path, told(**tables)) as server:
            for service in tables:
                registered(server, service, 3)
            wait_until(lambda: allowed.connections > 3, 20, "it was tried again")
            assert closed.connections == 0


@pytest.mark.parametrize("host", ["10.0.0.1", "events.example.com", "[fd00::1]"])
def test_nothing_is_sent_in_clear_to_another_machine(tmp_path: Path, told: Told, host: str) -> None:
    """The start is refused: it tells table and key, and no secret."""
    table = {"events_url": f"http://{host}/events", "events_secrets": secrets_of("shop")}
    server = Gunicorn(tmp_path, told(shop=table), ready=False)
    try:
        assert server.process.wait(30) != 0
    finally:
        server.kill()
    assert "SERVICES_FILE [shop] events_url" in server.log
    assert secrets_of("shop")[0].removeprefix("whsec_") not in server.log
