"""The way to Redis hangs, drips, splits or ends: every caller hears in time, and all goes on by itself."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from app.errors import StorageUnavailable
from app.repositories.scripts import HoldLock
from app.storage.storage import Storage
from tests.support.faults.names import Name
from tests.support.faults.proxy import Proxy
from tests.support.problems import assert_problem
from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn
from tests.support.waiting import wait_until

CALLERS = 20
TIMEOUT_S = 1.0
SOON_S = 2.5
"""About one REDIS_TIMEOUT: with what a busy machine adds, and less than two of them and a half."""


@pytest.fixture
def proxy(valkey_server: Valkey, store: redis.Redis) -> Iterator[Proxy]:
    """A way to an empty Valkey."""
    with Proxy(valkey_server.port) as found:
        yield found


@pytest.fixture
def storage(proxy: Proxy) -> Iterator[Storage]:
    """A store behind the proxy."""
    found = Storage(f"redis://127.0.0.1:{proxy.port}/0", TIMEOUT_S)
    yield found
    found.close()


@pytest.fixture
def name(tmp_path: Path) -> Name:
    return Name(tmp_path, "redis.test")


@pytest.fixture
def service(tmp_path: Path, proxy: Proxy, name: Name, mail_server: MailServer) -> Iterator[Gunicorn]:
    """The service, whose Redis has a name."""
    settings = {
        **name.environment,
        "REDIS_URL": f"redis://redis.test:{proxy.port}/0",
        "REDIS_TIMEOUT": str(TIMEOUT_S),
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(mail_server.port),
        "WEB_CONCURRENCY": "1",
    }
    with gunicorn(tmp_path, settings) as found:
        yield found


def hold(storage: Storage, owner: str = "owner") -> int:
    return int(storage.run(HoldLock(lock=f"cedula:lock:{owner}", owner=owner, ttl_ms=60_000)))


def fault(storage: Storage) -> tuple[str, float]:
    """The code of what a call comes to, and after how long."""
    began = time.monotonic()
    with pytest.raises(StorageUnavailable) as unavailable:
        hold(storage)
    return unavailable.value.code, time.monotonic() - began


def test_a_name_that_is_looked_up_for_long_costs_each_caller_one_time_out(
    service: Gunicorn, proxy: Proxy, name: Name
) -> None:
    """The connection is cut while the DNS hangs: 503 for all, side by side, from few lookups; as soon as the
    DNS answers, they are served."""
    assert service.register("ada@example.com").status_code == 201

    def took(caller: int) -> float:
        began = time.monotonic()
        assert_problem(service.register(f"user{caller}@example.com"), 503, "storage-unavailable")
        return time.monotonic() - began

    with name.hanging():
        proxy.cut()
        before = name.lookups
        with ThreadPoolExecutor(CALLERS) as threads:
            for _ in range(3):
                assert max(threads.map(took, range(CALLERS))) < SOON_S
        assert name.lookups - before <= 2
        assert service.http.get(f"{service.url}/healthz", timeout=20).status_code == 200
    wait_until(lambda: service.register("ada@example.com").status_code == 201, SOON_S, "it registers again")


def test_a_mail_server_whose_name_is_looked_up_for_ever_keeps_nobody_from_redis(
    tmp_path: Path, proxy: Proxy, mail_server: MailServer
) -> None:
    """More senders than gevent has threads for look-ups wait for the name: 202 once MAIL_TIMEOUT is over.
    Redis' name, too, is looked up again meanwhile, and the mails go out when the mail server's is known."""
    name = Name(tmp_path, "mail.test")
    settings = {
        **name.environment,
        "REDIS_URL": f"redis://localhost:{proxy.port}/0",
        "REDIS_TIMEOUT": str(TIMEOUT_S),
        "MAIL_SERVER": "mail.test",
        "MAIL_PORT": str(mail_server.port),
        "MAIL_TIMEOUT": "2",
    }
    with gunicorn(tmp_path, settings) as service:

        def status(caller: int) -> int:
            return service.register(f"user{caller}@example.com").status_code

        with name.hanging():
            with ThreadPoolExecutor(CALLERS) as threads:
                assert set(threads.map(status, range(CALLERS))) == {202}
            proxy.cut()
            wait_until(lambda: status(CALLERS) == 202, 5 * SOON_S, "Redis is reached")
            assert name.lookups < CALLERS
        for caller in range(CALLERS + 1):
            mail_server.box.wait_for(f"user{caller}@example.com", timeout_s=60)


@pytest.mark.parametrize("connected", [True, False], ids=["an answer", "the first answer"])
def test_an_answer_that_drips_is_waited_for_no_longer_than_a_silent_one(
    storage: Storage, proxy: Proxy, connected: bool
) -> None:
    """Each byte comes in time and the whole does not."""
    if connected:
        hold(storage)
    with proxy.dripping(TIMEOUT_S / 2):
        for _ in range(2):
            code, took_s = fault(storage)
            assert code == "timeout"
            assert took_s < SOON_S
    wait_until(lambda: is_held(storage), 15 * TIMEOUT_S, "it answers again")


def is_held(storage: Storage) -> bool:
    try:
        return hold(storage) == 1
    except StorageUnavailable:
        return False


def test_answers_in_pieces_are_whole(storage: Storage, proxy: Proxy) -> None:
    """Every caller's own, however the network cuts them."""
    with proxy.splitting(), ThreadPoolExecutor(CALLERS) as threads:
        assert set(threads.map(lambda turn: echoed(storage, turn), range(500))) == {"its own"}


def echoed(storage: Storage, turn: int) -> str:
    """Whose answer a caller gets, or the code of the fault."""
    said = f"caller {turn}".encode()
    try:
        return "its own" if storage.command("ECHO", said) == said else "another's"
    except StorageUnavailable as unavailable:
        return unavailable.code


def test_a_frozen_way_costs_each_caller_one_time_out(storage: Storage, proxy: Proxy) -> None:
    """Whether it was connected or connects."""
    hold(storage)
    with proxy.frozen(), ThreadPoolExecutor(CALLERS) as threads:
        for _ in range(2):
            found = list(threads.map(lambda _: fault(storage), range(CALLERS)))
            assert {code for code, _ in found} == {"timeout"}
            assert max(took_s for _, took_s in found) < SOON_S
    wait_until(lambda: is_held(storage), SOON_S, "it answers again")


def test_a_cut_is_each_callers_error_or_answer_and_nothing_more(storage: Storage, proxy: Proxy) -> None:
    """Connections end under load: whoever gets an answer gets its own; the next call goes through."""

    def call(turn: int) -> str:
        if turn % 50 == 25:
            proxy.cut()
        return echoed(storage, turn)

    with ThreadPoolExecutor(CALLERS) as threads:
        assert set(threads.map(call, range(1000))) <= {"its own", "closed"}
    assert echoed(storage, 0) == "its own"
