"""Many callers on one connection: everybody gets their own answer, and nobody's mishap is everybody's."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from app.storage.lines import KeptConnections, Line
from app.storage.scripts import connect, load_script
from tests.support.servers import Valkey

CALLERS = 64


def test_every_caller_gets_the_answer_to_its_own_command(store: redis.Redis, valkey_server: Valkey) -> None:
    """64 threads, 100 commands each, on one line."""
    pool = KeptConnections.from_url(valkey_server.url)
    line = Line.of(pool)

    def call(caller: int) -> bool:
        return all(
            line.call(("ECHO", f"{caller}-{turn}")) == f"{caller}-{turn}".encode() for turn in range(100)
        )

    with ThreadPoolExecutor(CALLERS) as threads:
        assert all(threads.map(call, range(CALLERS)))
    assert Line.of(pool) is line
    assert pool.get_connection() is not None
    pool.disconnect()


def test_an_error_of_one_command_is_its_callers_alone(store: redis.Redis, valkey_server: Valkey) -> None:
    """Half of the callers send what Redis refuses; the other half do not notice."""
    pool = KeptConnections.from_url(valkey_server.url)
    line = Line.of(pool)

    def call(caller: int) -> bool:
        if caller % 2:
            with pytest.raises(redis.ResponseError):
                line.call(("NONSENSE", caller))
            return True
        return bool(line.call(("ECHO", caller)) == str(caller).encode())

    with ThreadPoolExecutor(CALLERS) as threads:
        assert all(threads.map(call, list(range(CALLERS)) * 20))
    pool.disconnect()


def test_a_line_that_broke_is_made_anew(store: redis.Redis, valkey_server: Valkey) -> None:
    """Redis ends the connection under the callers: they hear of it, and the next call goes through."""
    pool = KeptConnections.from_url(valkey_server.url)
    line = Line.of(pool)
    assert line.call(("PING",)) == b"PONG"

    def call(_: int) -> str:
        try:
            line.call(("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no"))
        except redis.ConnectionError:
            return "broken"
        return "answered"

    with ThreadPoolExecutor(CALLERS) as threads:
        assert set(threads.map(call, range(CALLERS))) <= {"broken", "answered"}
    assert line.call(("PING",)) == b"PONG"
    pool.disconnect()


def test_a_caller_that_is_killed_while_it_waits_stops_nobody(
    store: redis.Redis, valkey_server: Valkey
) -> None:
    """Greenlets can be killed at any wait; the line must not wait for a dead leader. In a process of its own,
    because gevent changes the whole interpreter."""
    program = f"""
import gevent.monkey; gevent.monkey.patch_all()
import gevent, random
from app.storage.lines import KeptConnections, Line
pool = KeptConnections.from_url({valkey_server.url!r}, socket_timeout=2)
line = Line.of(pool)
for round in range(100):
    callers = [gevent.spawn(line.call, ("ECHO", n)) for n in range(50)]
    if round % 2:
        gevent.sleep(random.random() / 500)
        gevent.killall(random.sample(callers, 25), block=False)
    else:  # the leader, while it lets others go before it
        gevent.get_hub().loop.run_callback(callers[0].throw, gevent.GreenletExit)
    gevent.joinall(callers, timeout=5)
    assert all(caller.dead for caller in callers)
    with gevent.Timeout(5):
        assert line.call(("PING",)) == b"PONG"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True)


def test_callers_that_come_together_travel_together(store: redis.Redis, valkey_server: Valkey) -> None:
    """32 greenlets with a command each: one write and one read, not 32."""
    program = f"""
import gevent.monkey; gevent.monkey.patch_all()
import gevent, redis
from app.storage.lines import KeptConnections, Line
pool, other = KeptConnections.from_url({valkey_server.url!r}), redis.Redis.from_url({valkey_server.url!r})
line, reads = Line.of(pool), lambda: other.info("stats")["total_reads_processed"]
line.call(("PING",))
before = reads()
callers = [gevent.spawn(line.call, ("ECHO", n)) for n in range(32)]
gevent.joinall(callers, timeout=5)
assert [caller.value for caller in callers] == [str(n).encode() for n in range(32)]
assert reads() - before == 2, "theirs, and that of the question"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_script_survives_the_loss_of_the_script_cache(store: redis.Redis, valkey_server: Valkey) -> None:
    """NOSCRIPT says that nothing ran: the text is sent, for each caller on the line."""
    client = connect(valkey_server.url, 2.0)
    hold = load_script(client, "hold_lock")

    def call(caller: int) -> int:
        if caller % 8 == 0:
            store.script_flush()
        return int(hold([f"cedula:lock:{caller}"], ["owner", 1000]))

    with ThreadPoolExecutor(CALLERS) as threads:
        assert set(threads.map(call, range(500))) == {1}
    client.close()


def test_nobody_waits_for_a_silent_redis_longer_than_one_time_out(
    store: redis.Redis, valkey_server: Valkey
) -> None:
    """Whoever comes while others wait for an answer fails with them, and has sent nothing."""
    pool = KeptConnections.from_url(valkey_server.url, socket_timeout=1.0)
    line = Line.of(pool)
    assert line.call(("PING",)) == b"PONG"

    def call(caller: int) -> float:
        time.sleep(0.02 * caller)  # the first is under way when the others come
        began = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            line.call(("ECHO", caller))
        return time.monotonic() - began

    with valkey_server.frozen(), ThreadPoolExecutor(CALLERS) as threads:
        assert max(threads.map(call, range(20))) < 1.5
    assert line.call(("PING",)) == b"PONG"
    pool.disconnect()


def test_a_command_that_was_answered_but_whose_replicas_were_not_counted_fails(
    store: redis.Redis, valkey_server: Valkey
) -> None:
    """The connection ends while WAIT is under way: nobody knows how many have it."""
    pool = KeptConnections.from_url(valkey_server.url, socket_timeout=10.0)
    line = Line.of(pool)
    pool.connection_kwargs["socket_timeout"] = 0.3  # shorter than the WAIT that the line asks for
    assert line.call(("PING",)) == b"PONG"
    with pytest.raises(redis.TimeoutError):
        line.call(("PING",), replicas=1)
    pool.disconnect()
