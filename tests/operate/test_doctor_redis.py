"""`doctor` finds faults that were planted in a real Redis, and names the cure for each."""

import re
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from app.cli.doctor import store
from app.cli.doctor.findings import Level
from app.config import Settings
from tests.operate.doctor import SECRET, assert_found, worst
from tests.support.faults.redis import cannot_save
from tests.support.servers import ROOT, Valkey, free_port


def test_a_redis_as_it_should_be_has_nothing_to_complain_about(valkey: Valkey) -> None:
    """All is well, and what was written to find out is gone."""
    assert worst(store.examine(Settings(redis_url=valkey.url))) == []
    with closing(valkey.client()) as client:
        assert client.dbsize() == 0


Plant = Callable[[redis.Redis], Any]

REDIS_FAULTS: list[tuple[Plant, Level, str, str]] = [
    (
        lambda client: client.config_set("appendonly", "no"),
        Level.PROBLEM,
        "a restart of Redis forgets every registration",
        "appendonly yes",
    ),
    (
        lambda client: (client.config_set("appendonly", "no"), client.config_set("save", "3600 1")),
        Level.WARNING,
        "Only snapshots are kept",
        "appendonly yes",
    ),
    (
        lambda client: client.config_set("appendfsync", "no"),
        Level.WARNING,
        "appendfsync is no",
        "appendfsync everysec",
    ),
    (
        lambda client: (
            client.config_set("maxmemory", "1gb"),
            client.config_set("maxmemory-policy", "allkeys-lru"),
        ),
        Level.PROBLEM,
        "maxmemory-policy is allkeys-lru",
        "maxmemory-policy noeviction",
    ),
    (
        lambda client: client.config_set("maxmemory-policy", "volatile-ttl"),
        Level.WARNING,
        "maxmemory-policy is volatile-ttl",
        "maxmemory-policy noeviction",
    ),
    (
        lambda client: client.config_set("min-replicas-to-write", "1"),
        Level.PROBLEM,
        "fewer replicas are connected",
        "min-replicas-to-write",
    ),
    (
        lambda client: client.config_set("requirepass", "wanted"),
        Level.PROBLEM,
        "asks for a password",
        "redis://user:password@host",
    ),
    (
        lambda client: client.execute_command("ACL", "SETUSER", "default", "-eval", "-zadd"),
        Level.PROBLEM,
        "forbids 2 of the commands",
        "+zadd +eval",
    ),
    (
        lambda client: client.execute_command("ACL", "SETUSER", "default", "resetkeys", "~other:*"),
        Level.PROBLEM,
        "keeps us from our keys",
        "~cedula:*",
    ),
    (
        lambda client: client.set("cedula:keycheck", "abcdefghijklmnopqrstuvwxyz:sealed:2"),
        Level.PROBLEM,
        "SECRET_KEY is not set",
        "Set SECRET_KEY",
    ),
    (
        lambda client: client.set("cedula:keycheck", "abcdefghijklmnopqrstuvwxyz:clear:2"),
        Level.PROBLEM,
        "another index key",
        "Set INDEX_KEY",
    ),
    (
        lambda client: client.set("cedula:keycheck", "abcdefghijklmnopqrstuvwxyz:clear"),
        Level.PROBLEM,
        "by a version that named things otherwise",
        "docs/operate.md, Versions of the layout",
    ),
]


@pytest.mark.parametrize(("plant", "level", "says", "cure"), REDIS_FAULTS, ids=[f[2] for f in REDIS_FAULTS])
def test_a_fault_planted_in_redis_is_found(
    valkey: Valkey, plant: Plant, level: Level, says: str, cure: str
) -> None:
    """One fault, one finding, with its cure."""
    with closing(valkey.client()) as client:
        plant(client)
    assert_found(store.examine(Settings(redis_url=valkey.url)), level, says, cure)


def test_every_command_that_a_script_calls_is_tried() -> None:
    """So that an ACL of a release before is found before a service wants what that did without."""
    called = {
        command
        for script in (ROOT / "app/repositories/lua").glob("*.lua")
        for command in re.findall(r"redis\.call\('([A-Z]+)'", script.read_text())
    }
    assert called - {command[0] for command in store.COMMANDS} == {"TIME"}  # EVAL calls it


def test_the_acl_of_the_release_before_is_found(valkey: Valkey) -> None:
    """Which knew no events: all that they need is named at once."""
    new = ("rpush", "lpop", "llen", "lindex", "lset", "ltrim", "hincrby")
    with closing(valkey.client()) as client:
        client.execute_command("ACL", "SETUSER", "default", *(f"-{command}" for command in new))
    found = store.examine(Settings(redis_url=valkey.url))
    assert_found(
        found, Level.PROBLEM, "forbids 7 of the commands", "+hincrby +rpush +llen +lindex +lset +ltrim +lpop"
    )


def test_a_command_that_another_one_needs_is_named_alone(valkey: Valkey) -> None:
    """LSET fails where RPUSH is forbidden; that is no fault of its own."""
    with closing(valkey.client()) as client:
        client.execute_command("ACL", "SETUSER", "default", "-rpush")
    found = store.examine(Settings(redis_url=valkey.url))
    assert_found(found, Level.PROBLEM, "forbids 1 of the commands", "ACL SETUSER <user> +rpush")


def test_what_cannot_be_deleted_ends_by_itself(valkey: Valkey) -> None:
    """Where a command is forbidden the others still run, and no probe is without an end."""
    with closing(valkey.client()) as client:
        client.execute_command("ACL", "SETUSER", "default", "-del", "-hdel", "-zrem", "-pexpireat")
        found = store.examine(Settings(redis_url=valkey.url))
        assert_found(found, Level.PROBLEM, "forbids 4 of the commands", "+hdel +pexpireat +zrem +del")
        left = client.keys()
        assert len(left) == 4
        assert all(0 < client.pttl(key) <= store.PROBE_MS for key in left)


def test_a_full_memory_is_found(valkey: Valkey) -> None:
    """Once as nearly full, once as the reason why writes are refused."""
    with closing(valkey.client()) as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) // 2)
    nearly, refused = worst(store.examine(Settings(redis_url=valkey.url)))
    assert nearly.says.endswith("when it is full, writes are refused.")
    assert "memory is full" in refused.says
    assert "Raise maxmemory" in refused.cure


def test_a_full_disk_is_found(valkey: Valkey) -> None:
    """MISCONF: told as the disk, with a look at it as the cure."""
    with closing(valkey.client()) as client, cannot_save(valkey, client):
        found = worst(store.examine(Settings(redis_url=valkey.url)))
    assert all("disk" in finding.says for finding in found)
    assert "Writes are refused" in found[-1].says
    assert "disk is full" in found[-1].cure


def test_a_database_that_is_not_there_is_found(valkey: Valkey) -> None:
    """Valkey has 16 of them unless it is told otherwise."""
    found = store.examine(Settings(redis_url=valkey.url.replace("/0", "/16")))
    assert_found(found, Level.PROBLEM, "no such database", "raise `databases`")


def test_a_replica_is_found(valkey: Valkey, tmp_path: Path) -> None:
    """By its role, and because it refuses to write."""
    (tmp_path / "replica").mkdir()
    replica = Valkey(tmp_path / "replica", save="", appendonly="yes")
    with closing(replica.client()) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", str(valkey.port))
    found = worst(store.examine(Settings(redis_url=replica.url)))
    replica.stop()
    assert [finding.level for finding in found] == [Level.PROBLEM, Level.PROBLEM]
    assert all("redis+sentinel://" in finding.cure for finding in found)


def test_missing_replicas_are_found(valkey: Valkey) -> None:
    """REDIS_WAIT_REPLICAS that nobody can fulfil."""
    found = store.examine(Settings(redis_url=valkey.url, redis_wait_replicas=1))
    assert_found(
        found, Level.PROBLEM, "asks for 1 replicas, and 0 are connected", "lower REDIS_WAIT_REPLICAS"
    )


def test_data_in_clear_is_found_where_a_secret_key_is_set(valkey: Valkey) -> None:
    """The service would not start; nor would it read the data."""
    with closing(valkey.client()) as client:
        client.set("cedula:keycheck", "abcdefghijklmnopqrstuvwxyz:clear:2")
    found = store.examine(Settings(redis_url=valkey.url, secret_key=SECRET, index_key=SECRET))
    assert_found(found, Level.PROBLEM, "lies in clear", "Unset SECRET_KEY")


def test_a_wrong_password_is_found(valkey: Valkey) -> None:
    """As such, and without saying it."""
    with closing(valkey.client()) as client:
        client.config_set("requirepass", "wanted")
    url = valkey.url.replace("://", "://:gu3ssed@")
    findings = list(store.examine(Settings(redis_url=url)))
    assert_found(findings, Level.PROBLEM, "refuses the user name or the password", "ACL LIST")
    assert "gu3ssed" not in str(findings)


def test_a_redis_that_cannot_be_reached_is_found(valkey: Valkey) -> None:
    """Not there, an unknown host, no TLS at that port, no cluster: each has its own cure."""
    for url, says, cure in (
        (f"redis://127.0.0.1:{free_port()}/0", "Nothing listens", "Start Redis"),
        ("redis://redis.invalid/0", "host name in REDIS_URL is unknown", "DNS"),
        (valkey.url.replace("redis:", "rediss:"), "does not speak TLS", "redis:// in a network"),
        (
            valkey.url.replace("redis:", "redis+cluster:").removesuffix("/0"),
            "no cluster answers",
            "Use redis://",
        ),
    ):
        settings = Settings(redis_url=url, redis_timeout_s=0.3)
        assert_found(store.examine(settings), Level.PROBLEM, says, cure)


def test_a_redis_that_says_nothing_is_found() -> None:
    """A port that takes connections and does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        found = list(store.examine(Settings(redis_url=url, redis_timeout_s=0.2)))
    assert_found(found, Level.PROBLEM, "did not answer in time", "REDIS_TIMEOUT")


def test_what_may_not_be_asked_is_a_note(valkey: Valkey) -> None:
    """Managed servers forbid INFO and CONFIG; that is no fault of the service."""
    with closing(valkey.client()) as client:
        client.execute_command("ACL", "SETUSER", "default", "-info", "-config")
    findings = list(store.examine(Settings(redis_url=valkey.url)))
    assert worst(findings) == []
    assert [finding.level for finding in findings].count(Level.NOTE) == 1


def test_a_clock_that_is_wrong_is_found(valkey: Valkey) -> None:
    """Ours is a minute ahead."""
    found = store.examine(Settings(redis_url=valkey.url), clock=lambda: time.time() + 60)
    assert_found(found, Level.WARNING, "60 s ahead", "NTP")
