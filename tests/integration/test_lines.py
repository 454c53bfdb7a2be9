"""Many callers on one connection: everybody gets their own answer, in time, whatever happens to others."""

import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from redis.connection import AbstractConnection

from app.repositories.scripts import HoldLock
from app.storage.connections import Connections
from app.storage.faults import Broken
from app.storage.line import CHECK_AFTER_IDLE_S, Line
from app.storage.storage import Storage
from app.storage.url import RedisUrl
from app.storage.watchdog import Watchdog
from tests.support.servers import ROOT, Valkey
from tests.support.storage import line_to
from tests.support.waiting import wait_until

CALLERS = 64


@pytest.fixture
def line(store: redis.Redis, valkey_server: Valkey) -> Iterator[Line]:
    """A line to an empty Valkey."""
    found = line_to(valkey_server.url)
    yield found
    found.close()


def test_every_caller_gets_the_answer_to_its_own_command(line: Line) -> None:
    """64 threads, 100 commands each, on one line."""

    def call(caller: int) -> bool:
        return all(
            line.call([("ECHO", f"{caller}-{turn}")]) == [f"{caller}-{turn}".encode()] for turn in range(100)
        )

    with ThreadPoolExecutor(CALLERS) as threads:
        assert all(threads.map(call, range(CALLERS)))


def test_commands_of_one_caller_stay_side_by_side(line: Line) -> None:
    """Each caller's transaction holds its own commands, and no other's."""

    def call(caller: int) -> bool:
        answers = line.call([("MULTI",), ("ECHO", caller), ("ECHO", -caller), ("EXEC",)])
        return bool(answers[-1] == [str(caller).encode(), str(-caller).encode()])

    with ThreadPoolExecutor(CALLERS) as threads:
        assert all(threads.map(call, list(range(CALLERS)) * 20))


def test_an_error_of_one_command_is_its_callers_alone(line: Line) -> None:
    """Half of the callers send what Redis refuses; the other half do not notice."""

    def call(caller: int) -> bool:
        (answer,) = line.call([("NONSENSE" if caller % 2 else "ECHO", caller)])
        return isinstance(answer, redis.ResponseError) if caller % 2 else answer == str(caller).encode()

    with ThreadPoolExecutor(CALLERS) as threads:
        assert all(threads.map(call, list(range(CALLERS)) * 20))


def test_a_line_that_broke_is_made_anew(line: Line) -> None:
    """Redis ends the connection under the callers: they hear of it, and the next call goes through."""
    assert line.call([("PING",)]) == [b"PONG"]

    def call(_: int) -> str:
        try:
            line.call([("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")])
        except Broken as broken:
            return f"sent: {broken.sent}"
        return "answered"

    with ThreadPoolExecutor(CALLERS) as threads:
        assert set(threads.map(call, range(CALLERS))) <= {"sent: True", "answered"}
    with contextlib.suppress(Broken):  # the last kill was answered, and its end may only be on its way
        line.call([("PING",)])
    assert line.call([("PING",)]) == [b"PONG"]


def test_a_connection_that_was_closed_while_it_rested_is_replaced_unnoticed(
    line: Line, store: redis.Redis
) -> None:
    """As Redis' `timeout` setting, or a firewall, closes it."""
    assert line.call([("PING",)]) == [b"PONG"]
    store.client_kill_filter(_type="normal", skipme=True)
    idle = time.monotonic()
    wait_until(lambda: time.monotonic() - idle > CHECK_AFTER_IDLE_S, 5, "it rested")
    assert line.call([("PING",)]) == [b"PONG"]


def test_what_no_command_can_be_made_of_is_the_callers_error(line: Line) -> None:
    """Nothing is sent, and the line goes on."""
    with pytest.raises(TypeError):
        line.call([("ECHO", object())])
    assert line.call([("PING",)]) == [b"PONG"]


def test_a_line_that_nobody_needs_any_more_closes_its_connection(
    store: redis.Redis, valkey_server: Valkey
) -> None:
    """Closed or forgotten: no connection and no thread stays behind."""

    def clients() -> int:
        return len(store.client_list())

    before = clients()
    closed, forgotten = line_to(valkey_server.url), line_to(valkey_server.url)
    for line in (closed, forgotten):
        line.call([("PING",)])
    assert clients() == before + 2
    closed.close()
    del line, forgotten
    wait_until(lambda: clients() == before, 5, "both connections are closed")
    assert closed.call([("PING",)]) == [b"PONG"]
    closed.close()


@pytest.mark.parametrize(
    "program", ["killed_callers", "gone_callers", "gone_last", "closed_line", "together", "started_once"]
)
def test_greenlets_on_a_line(store: redis.Redis, valkey_server: Valkey, program: str) -> None:
    """In processes of their own: gevent changes the whole interpreter. Each file says what it shows."""
    command = [sys.executable, "-m", f"tests.support.programs.{program}", valkey_server.url]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_lines_that_are_gone_leave_nothing_behind(valkey_server: Valkey) -> None:
    """A cluster that moves makes many: not even a handler for forks."""

    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    line_to(valkey_server.url)
    before = objects()
    for _ in range(100):
        line_to(valkey_server.url)
    assert objects() - before < 100


def test_callers_hear_in_time_although_the_watchdog_died(valkey_server: Valkey) -> None:
    """It is started again, and named meanwhile."""

    class Deadly:
        def end_overdue(self, now: float) -> bool:
            raise SystemExit

    watchdog, deadly = Watchdog(0.5), [Deadly()]
    watchdog.add(deadly[0])
    line = Line(Connections(RedisUrl.read(valkey_server.url), 0.5).connect(), watchdog)
    with ThreadPoolExecutor(1) as threads, valkey_server.frozen():
        call = threads.submit(line.call, [("PING",)])
        wait_until(lambda: watchdog.thread.fault == "died", 5, "it died")
        deadly.clear()
        assert isinstance(call.exception(timeout=10), Broken)
    line.close()


def test_a_forked_process_has_a_connection_of_its_own(store: redis.Redis, valkey_server: Valkey) -> None:
    """What the child sends is not answered to the parent, nor the reverse."""
    storage = Storage(valkey_server.url, 2.0)

    def connection() -> int:
        return int(storage.servers()[0].command("CLIENT", "ID"))

    parents = connection()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = int(connection() == parents)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert connection() == parents
    storage.close()


def test_a_script_survives_the_loss_of_the_script_cache(store: redis.Redis, valkey_server: Valkey) -> None:
    """NOSCRIPT says that nothing ran: the text is sent, for each caller on the line."""
    storage = Storage(valkey_server.url, 2.0)

    def call(caller: int) -> int:
        if caller % 8 == 0:
            store.script_flush()
        return int(storage.run(HoldLock(lock=f"cedula:lock:{caller}", owner="owner", ttl_ms=1000)))

    with ThreadPoolExecutor(CALLERS) as threads:
        assert set(threads.map(call, range(500))) == {1}
    storage.close()


def longest_wait_s(line: Line, callers: int = 20) -> float:
    """Of callers that come one after the other while nothing is answered."""

    def call(caller: int) -> float:
        time.sleep(0.02 * caller)  # the first is under way when the others come
        began = time.monotonic()
        with pytest.raises(Broken) as broken:
            line.call([("ECHO", caller)])
        assert isinstance(broken.value.error, redis.TimeoutError)
        return time.monotonic() - began

    with ThreadPoolExecutor(callers) as threads:
        return max(threads.map(call, range(callers)))


def test_nobody_waits_for_a_silent_redis_longer_than_one_time_out(
    store: redis.Redis, valkey_server: Valkey
) -> None:
    """Neither who sent something nor who came while others waited."""
    line = line_to(valkey_server.url, timeout_s=1.0)
    assert line.call([("PING",)]) == [b"PONG"]
    with valkey_server.frozen():
        assert longest_wait_s(line) < 1.5
    assert line.call([("PING",)]) == [b"PONG"]
    line.close()


def test_what_was_not_sent_before_its_caller_gave_up_is_never_sent(
    store: redis.Redis, valkey_server: Valkey
) -> None:
    """While another exchange lasts, it waits in this process; nobody has to wonder what became of it."""
    line = line_to(valkey_server.url, timeout_s=1.0)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(line.call, [("BLPOP", "cedula:nothing", "0.8")])
        wait_until(lambda: store.info("clients")["blocked_clients"] == 1, 5, "it is under way")
        with pytest.raises(Broken) as broken:
            line.call([("SET", "cedula:late", "1", "PX", 1000)], timeout_s=0.2)
        assert not broken.value.sent
        assert slow.result() == [None]
    assert line.call([("EXISTS", "cedula:late")]) == [0]
    line.close()


def test_a_command_that_was_answered_but_whose_replicas_were_not_counted_fails(
    store: redis.Redis, valkey_server: Valkey
) -> None:
    """Nobody else has it; and the connection may end while WAIT is under way."""
    line = line_to(valkey_server.url, timeout_s=1.0)
    with pytest.raises(Broken) as broken:
        line.call([("SET", "cedula:alone", "1", "PX", 1000)], replicas=1)
    assert broken.value.sent
    with ThreadPoolExecutor(1) as threads:
        waits = threads.submit(line.call, [("PING",)], replicas=1)
        wait_until(lambda: store.info("clients")["blocked_clients"] == 1, 5, "it waits for replicas")
        store.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(Broken):
            waits.result()
    line.close()


def test_a_server_that_falls_silent_while_it_counts_replicas_acknowledges_nothing(
    store: redis.Redis, valkey_server: Valkey
) -> None:
    """The command was answered. Whether a replica has it nobody knows, and this server may not come back."""
    line = line_to(valkey_server.url, timeout_s=2.0)
    with ThreadPoolExecutor(1) as threads:
        waits = threads.submit(line.call, [("PING",)], replicas=1)
        wait_until(lambda: store.info("clients")["blocked_clients"] == 1, 5, "it waits for replicas")
        with valkey_server.frozen(), pytest.raises(Broken) as broken:
            waits.result()
    assert broken.value.sent
    line.close()


def test_a_fresh_connection_says_who_it_is_and_nothing_else(
    store: redis.Redis, valkey_server: Valkey
) -> None:
    """HELLO with the login, and SELECT where there is a database. What Redis does not know, such as CLIENT
    MAINT_NOTIFICATIONS, it counts among the errors only."""
    store.config_resetstat()
    line = line_to(valkey_server.url.replace("/0", "/3"))
    line.call([("PING",)])
    line.close()
    calls = {name: stat["calls"] for name, stat in store.info("commandstats").items()}
    calls.pop("cmdstat_info", None), calls.pop("cmdstat_config|resetstat", None)
    assert calls == {"cmdstat_hello": 1, "cmdstat_select": 1, "cmdstat_ping": 1}
    assert store.info("stats")["total_error_replies"] == 0


def test_an_attempt_to_connect_that_never_ends_is_given_up_and_made_anew(valkey_server: Valkey) -> None:
    """Callers fail in time while it lasts, all with the same attempt; then another one serves."""
    attempts, never = [0], threading.Event()
    good = Connections(RedisUrl.read(valkey_server.url), 0.2).connect()

    def connect() -> AbstractConnection:
        attempts[0] += 1
        if attempts[0] == 1:
            never.wait(60)
        return good()

    line = Line(connect, Watchdog(0.2))

    def served() -> bool:
        try:
            return line.call([("PING",)]) == [b"PONG"]
        except Broken as broken:
            return broken.sent

    with ThreadPoolExecutor(CALLERS) as threads:
        assert set(threads.map(lambda _: served(), range(CALLERS))) == {False}
    assert attempts == [1]
    wait_until(served, 10, "it serves")
    assert attempts == [2]
    never.set()
    line.close()


class Stubborn:
    """A connection that hangs and cannot be ended."""

    def __init__(self) -> None:
        self.sending, self.never = threading.Event(), threading.Event()

    def send_packed_command(self, _: object) -> None:
        self.sending.set()
        self.never.wait(60)
        raise redis.ConnectionError

    def disconnect(self) -> None:
        raise ValueError


def test_a_worker_that_cannot_be_dismissed_is_replaced_all_the_same(valkey_server: Valkey) -> None:
    """Who waits behind it is served by its successor."""
    stubborn = Stubborn()
    connections: list[Any] = [Connections(RedisUrl.read(valkey_server.url), 0.2).connect()(), stubborn]
    line = Line(connections.pop, Watchdog(0.2))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(line.call, [("PING",)])
        assert stubborn.sending.wait(10)
        second = threads.submit(line.call, [("PING",)], timeout_s=10)
        assert isinstance(first.exception(), Broken)
        assert second.result() == [b"PONG"]
    stubborn.never.set()
    line.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it dies on purpose
def test_callers_do_not_wait_for_a_worker_that_died(valkey_server: Valkey) -> None:
    """Whatever ends its thread: they hear of it, and the next call starts another."""
    deaths = [SystemExit(), SystemExit()]
    dying: list[threading.Thread] = []
    good = Connections(RedisUrl.read(valkey_server.url), 5.0).connect()

    def connect() -> AbstractConnection:
        if deaths:
            dying.append(threading.current_thread())
            raise deaths.pop()
        return good()

    line = Line(connect, Watchdog(5.0))
    for _ in range(2):
        with pytest.raises(Broken) as broken:
            line.call([("PING",)])
        assert isinstance(broken.value.error, SystemExit)
    assert line.call([("PING",)]) == [b"PONG"]
    line.close()
    for thread in dying:  # so that what pytest hears of them belongs to this test
        thread.join(10)
