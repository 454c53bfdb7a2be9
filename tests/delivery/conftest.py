"""The service inside the test's own process (threads, no gunicorn), beside a scripted mail server."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
import redis
from werkzeug.test import TestResponse

from app import create_app
from app.config import Settings
from app.container import Container
from app.domain import service as services
from app.domain.address import Address
from app.domain.registration import Draft
from app.domain.service import Budget
from tests.support.authority import Authority
from tests.support.records import Records
from tests.support.servers import Valkey
from tests.support.smtp import ScriptedSmtp
from tests.support.waiting import wait_until

T = TypeVar("T")

MAIL_TIMEOUT_S = 1.0
"""A tenth of the default, so that a lease lasts 7 s and a sweep 3.5 s."""


ONE_AT_A_TIME = threading.Lock()
"""Routes are compiled through `ast`, which CPython before 3.11.8 mixes up between threads (gh-106905)."""


class Service:
    """One process's share of the service: routes, senders and relay."""

    def __init__(self, redis_url: str, smtp: ScriptedSmtp, **settings: Any) -> None:
        chosen = {
            "redis_url": redis_url,
            "mail_server": "127.0.0.1",
            "mail_port": smtp.port,
            "mail_default_sender": "Cedula <no-reply@example.com>",
            "mail_timeout_s": MAIL_TIMEOUT_S,
            "mail_connections": 4,
            "address_limit": Budget(),
        }
        with ONE_AT_A_TIME:
            self.app = create_app(Settings(**{**chosen, **settings}))
        self.container: Container = self.app.extensions["cedula"]
        self.records = Records(self.container.storage)
        self.container.messaging.start()

    def register(self, address: str, *, headers: dict[str, str] | None = None) -> tuple[TestResponse, float]:
        """The answer, and the seconds it took."""
        began = time.monotonic()
        answer = self.app.test_client().post(
            "/api/users", json={"email": address, "token": "t0ken"}, headers=headers
        )
        return answer, time.monotonic() - began

    def store_without_sending(self, address: str) -> None:
        """A registration whose process dies right after the commit: the lease is taken and nobody sends."""
        draft = Draft(Address.parse(address), "t0ken", "en", services.Service())
        self.container.registration.store(draft, self.container.outbox.lease_ms)

    @contextmanager
    def in_thread(self, work: Callable[[], T]) -> Iterator[Future[T]]:
        """Does something beside the test, and waits for its end."""
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(work)

    def look_up(self, address: str) -> dict[str, Any]:
        """Empty where there is none."""
        answer = self.app.test_client().get(f"/api/users/{self.records.keys(address).user_id}")
        return dict(answer.get_json()) if answer.status_code == 200 else {}

    def erase(self, address: str) -> int:
        path = f"/api/users/{self.records.keys(address).user_id}"
        return self.app.test_client().delete(path).status_code

    def delivery(self, address: str) -> str:
        return str(self.look_up(address).get("delivery", "gone"))

    def wait_for_delivery(self, address: str, delivery: str, timeout_s: float = 15.0) -> dict[str, Any]:
        """What a look-up then says; empty where it is to be gone."""
        wait_until(lambda: self.delivery(address) == delivery, timeout_s, f"delivery is {delivery}")
        return self.look_up(address)

    @property
    def smtp_state(self) -> str:
        return str(self.app.test_client().get("/readyz").get_json()["smtp"])

    def stop(self) -> None:
        self.container.stop()
        self.container.storage.close()


Serve = Callable[..., Service]


PRELOAD = ((), ("--preload",))
"""Arguments of gunicorn, without and with."""


def combined(kinds: Sequence[str], others: Sequence[Any], quick: tuple[str, Any]) -> list[Any]:
    """Parameters: every kind of worker with every other thing. Each takes some twenty seconds, so all but one
    pair are slow."""
    return [
        pytest.param(kind, other, marks=[] if (kind, other) == quick else [pytest.mark.slow])
        for kind in kinds
        for other in others
    ]


@pytest.fixture
def smtp() -> Iterator[ScriptedSmtp]:
    server = ScriptedSmtp()
    yield server
    server.close()
    assert server.violations == []


@pytest.fixture
def serve(valkey_server: Valkey, store: redis.Redis) -> Iterator[Serve]:
    """Starts services; they end with the test."""
    started: list[Service] = []

    def start(smtp: ScriptedSmtp, **settings: Any) -> Service:
        started.append(Service(valkey_server.url, smtp, **settings))
        return started[-1]

    yield start
    for service in started:
        service.stop()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))
