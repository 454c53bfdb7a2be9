"""The API from outside: gunicorn, Valkey and a mail server, shared by tests with addresses of their own."""

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import pytest
import redis
import requests
from stdnum import damm

from tests.support.records import Records
from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn, settings_for, stopping

T = TypeVar("T")

SHOP, SHOP_NEXT, BANK = "key-of-the-shop", "next-key-of-the-shop", "key-of-the-bank"
API_KEYS = ",".join(
    f"{name}:{hashlib.sha256(key.encode()).hexdigest()}"
    for name, key in (("shop", SHOP), ("shop", SHOP_NEXT), ("bank", BANK))
)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def wrong(number: str, other: int = 1) -> str:
    """Another number with a right check digit, of the same shard."""
    secret = (int(number[:-4]) + other) % 10 ** (len(number) - 4)
    body = f"{secret:0{len(number) - 4}}{number[-4:-1]}"
    return body + str(damm.calc_check_digit(body))


def race(acts: Sequence[Callable[[], T]]) -> list[T]:
    """What each returned, all begun at the same moment in threads of their own."""
    start = threading.Barrier(len(acts))

    def begin(act: Callable[[], T]) -> T:
        start.wait(30)
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(begin, acts))


def at_once(count: int, act: Callable[[], T]) -> list[T]:
    """What `act` returned to so many that did it at the same moment."""
    return race([act] * count)


def named(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


class Api:
    """One service, and the mailboxes of its users (None: the test looks into them itself)."""

    def __init__(self, server: Gunicorn, mail: MailServer | None = None, key: str = "") -> None:
        self.server, self._mail = server, mail
        self.url = server.url
        self.headers = bearer(key) if key else {}

    @property
    def mail(self) -> MailServer:
        assert self._mail is not None
        return self._mail

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        headers = {**self.headers, **options.pop("headers", {})}
        return self.server.http.request(
            method, f"{self.url}{path}", headers=headers, timeout=60, allow_redirects=False, **options
        )

    def register(self, email: str, token: str = "t0ken", **more: Any) -> requests.Response:
        headers = more.pop("headers", {})
        return self.call("POST", "/api/users", json={"email": email, "token": token, **more}, headers=headers)

    def verify(self, email: str, number: str, **more: Any) -> requests.Response:
        return self.call("POST", "/api/users/verify", json={"email": email, "number": number}, **more)

    def registered(self, email: str, token: str = "t0ken") -> str:
        """Registers, and returns the number that was mailed."""
        answer = self.register(email, token)
        assert answer.status_code == 201, answer.text
        return self.number_of(email)

    def number_of(self, email: str) -> str:
        """The number that was mailed last."""
        return str(self.mail.box.wait_for(email)[-1].number)


@pytest.fixture
def email() -> str:
    """An address that no other test uses."""
    return f"ada.{uuid.uuid4().hex[:12]}@example.com"


@pytest.fixture(scope="package")
def mail() -> Iterator[MailServer]:
    with stopping(MailServer()) as server:
        yield server


@pytest.fixture(scope="package")
def serving(
    valkey_server: Valkey, mail: MailServer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., AbstractContextManager[Gunicorn]]:
    """Starts a service on the shared servers."""

    def start(**settings: str) -> AbstractContextManager[Gunicorn]:
        return gunicorn(tmp_path_factory.mktemp("service"), settings_for(valkey_server, mail) | settings)

    return start


@pytest.fixture(scope="package")
def boundless(serving: Callable[..., AbstractContextManager[Gunicorn]]) -> Iterator[Gunicorn]:
    """The service, open and without budgets."""
    with serving(ADDRESS_LIMIT="", MAILBOX_LIMIT="", VERIFY_LIMIT="") as server:
        yield server


@pytest.fixture(scope="package")
def guarded(serving: Callable[..., AbstractContextManager[Gunicorn]]) -> Iterator[Gunicorn]:
    """The service as it comes, with API keys."""
    with serving(API_KEYS=API_KEYS) as server:
        yield server


@pytest.fixture
def api(boundless: Gunicorn, mail: MailServer, store: redis.Redis) -> Api:
    """The API without keys and budgets, on an empty store."""
    return Api(boundless, mail)


@pytest.fixture
def keyed(guarded: Gunicorn, mail: MailServer, store: redis.Redis) -> Api:
    """The API as the shop calls it, with the usual budgets, on an empty store."""
    return Api(guarded, mail, SHOP)


@pytest.fixture
def records(store: redis.Redis) -> Records:
    return Records(store)
