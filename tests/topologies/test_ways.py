"""Ways to Redis that are not there, not to be trusted, or end in the middle."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from app.errors import StorageUnavailable
from app.repositories.scripts import HoldLock
from app.storage.scripts import SCRIPTS
from app.storage.storage import Storage
from tests.support.authority import Authority
from tests.support.problems import assert_problem
from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn, stopping
from tests.support.topologies import Cluster
from tests.support.waiting import wait_until
from tests.topologies.places import LOGIN, RedisServer, documented_user, one


@pytest.fixture
def settings(mail_server: MailServer) -> dict[str, str]:
    return {
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(mail_server.port),
        "WEB_CONCURRENCY": "1",
        "CLIENT_LIMIT": "1000/minute",
    }


def test_a_socket_of_this_machine_with_a_login(tmp_path: Path) -> None:
    """unix://user:password@/path?db=…"""
    path = tmp_path / "s"
    with stopping(Valkey(tmp_path / "server", unixsocket=str(path))) as server:
        server.client().execute_command(*documented_user("one server, or sentinels"))
        storage = Storage(f"unix://{LOGIN}{path}?db=3", 2.0)
        assert storage.run(HoldLock("cedula:lock", "owner", 1000)) == 1
        assert redis.Redis(port=server.port, db=3).get("cedula:lock") == b"owner"


def test_a_cluster_that_is_away_at_the_start_is_served_when_it_is_back(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    """As a single server: the service starts, answers 503 at once, and registers when the nodes are there."""
    with stopping(Cluster(tmp_path / "cluster", replicas=False)) as nodes:
        for node in nodes.nodes:
            node.kill()
        with gunicorn(tmp_path, {**settings, "REDIS_URL": nodes.url}) as service:
            began = time.monotonic()
            assert_problem(service.register("ada@example.com"), 503, "storage-unavailable")
            assert service.http.get(f"{service.url}/readyz", timeout=20).status_code == 503
            assert time.monotonic() - began < 10  # not until the nodes are there
            assert "cluster_unknown" in service.log
            for node in nodes.nodes:
                node.start()
            wait_until(lambda: service.register("ada@example.com").status_code == 201, 30, "it registers")
            assert service.http.get(f"{service.url}/readyz", timeout=20).status_code == 200


@pytest.mark.slow
def test_silent_nodes_keep_nobody_longer_than_one_time_out(tmp_path: Path, settings: dict[str, str]) -> None:
    """All nodes are frozen: each request is answered within the time-out, however many nodes there are."""
    with (
        stopping(Cluster(tmp_path / "cluster", replicas=False)) as nodes,
        gunicorn(tmp_path, {**settings, "REDIS_URL": nodes.url, "REDIS_TIMEOUT": "0.5"}) as service,
    ):
        assert service.register("ada@example.com").status_code == 201
        with nodes.nodes[0].frozen(), nodes.nodes[1].frozen(), nodes.nodes[2].frozen():
            for turn in range(4):
                began = time.monotonic()
                assert_problem(service.register(f"bob{turn}@example.com"), 503, "storage-unavailable")
                assert time.monotonic() - began < 2
        wait_until(lambda: service.register("ada@example.com").status_code == 201, 30, "it registers")


ALLOWED_NOWHERE = [
    ("SET", "other", "1"),
    ("GET", "other"),
    ("DEL", "{other"),
    ("KEYS", "*"),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("CONFIG", "REWRITE"),
    ("ACL", "LIST"),
    ("SCRIPT", "FLUSH"),
    ("FUNCTION", "FLUSH"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("CLIENT", "PAUSE", "1000"),
    ("CLIENT", "LIST"),
    ("SHUTDOWN",),
    ("REPLICAOF", "NO", "ONE"),
    ("MONITOR",),
    ("PUBLISH", "cedula:channel", "1"),
    ("RENAME", "cedula:a", "cedula:b"),
    ("MIGRATE", "127.0.0.1", "1", "cedula:a", "0", "1"),
    ("EVAL", "return redis.call('GET', 'other')", "0"),
    ("EVAL", "return redis.call('KEYS', '*')", "0"),
]


FROM_PYTHON = {
    *("ping", "select", "client|setname", "eval", "evalsha", "wait", "time", "scan", "dbsize"),
    *("get", "set", "del", "hget", "hmget", "hgetall", "zcard", "zrange", "zrangebyscore"),
    *("rpush", "lpop", "hset", "hincrby", "hdel", "zadd", "pexpire"),
    *("info", "config|get"),
}
"""What is called without a script, by the service, its commands and the doctor."""


def test_the_documented_user_is_granted_what_is_called_and_nothing_more() -> None:
    """Scripts are read for what they call; in a cluster the map is asked for."""
    texts = [script.text.decode() for script in SCRIPTS.values()]
    called = {
        name.lower() for text in texts for name in re.findall(r"(?:redis\.call|read)\(['\"](\w+)['\"]", text)
    }
    for where, more in (
        ("one server, or sentinels", set()),
        ("every node of a cluster", {"asking", "cluster|slots"}),
    ):
        granted = {word[1:] for word in documented_user(where) if word.startswith("+")}
        assert granted == called | FROM_PYTHON | more


@pytest.fixture(params=["valkey", pytest.param("redis-server", marks=pytest.mark.system)])
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Valkey | RedisServer]:
    folder = tmp_path / "server"
    kinds: dict[str, Callable[[], Valkey | RedisServer]] = {
        "valkey": lambda: Valkey(folder, save=""),
        "redis-server": lambda: RedisServer(folder),
    }
    with stopping(kinds[request.param]()) as server:
        yield server


def test_the_documented_user_may_nothing_else(guarded: Valkey | RedisServer) -> None:
    """What tests/topologies/test_story.py does with it is all that it can."""
    place = one(guarded)
    (server,) = Storage(place.url, 2.0).servers()
    for command in ALLOWED_NOWHERE:
        with pytest.raises(StorageUnavailable) as refused:
            server.command(*command)
        assert refused.value.code == "NOPERM"
    assert place.client.dbsize() == 0


@pytest.mark.system
def test_a_private_authority_is_trusted_and_nobody_else(
    tmp_path: Path, settings: dict[str, str], mail_server: MailServer
) -> None:
    """Without its certificate, and under a wrong name: 503, and the log says why. With it: registered."""
    authority = Authority(tmp_path)
    with stopping(RedisServer(tmp_path / "good", authority)) as good:
        untrusted = good.url.partition("?")[0]
        assert "certificate in certificate chain" in refused(tmp_path, settings, untrusted, mail_server)
        with gunicorn(tmp_path, {**settings, "REDIS_URL": good.url}) as service:
            assert service.register("ada@example.com").status_code == 201
    with stopping(RedisServer(tmp_path / "other", authority, "redis.example.com")) as other:
        assert refused(tmp_path, settings, other.url, mail_server).startswith("IP address mismatch")


def refused(tmp_path: Path, settings: dict[str, str], url: str, mail_server: MailServer) -> str:
    """What the log says is wrong with the certificate."""
    with gunicorn(tmp_path, {**settings, "REDIS_URL": url}) as service:
        assert_problem(service.register("eve@example.com"), 503, "storage-unavailable")
        assert mail_server.box.to("eve@example.com") == []
        return reason(service)


def reason(service: Gunicorn) -> str:
    marker = '"level":"error"'
    lines = [line for line in service.log.splitlines() if "storage_unavailable" in line and marker in line]
    assert lines, service.log
    return lines[-1].partition('"detail":"')[2].partition('"')[0]
