"""A Redis that refuses: while such a context lasts, a running Valkey takes no writes. Then it recovers."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import redis

from tests.support.scan import Client
from tests.support.servers import Valkey, free_port
from tests.support.waiting import wait_until

Fault = Callable[[Valkey, redis.Redis], AbstractContextManager[None]]


@contextmanager
def read_only(valkey: Valkey, store: redis.Redis) -> Iterator[None]:
    """READONLY: a failover has made a replica of it."""
    store.replicaof("127.0.0.1", str(free_port()))
    try:
        yield
    finally:
        store.replicaof("NO", "ONE")


@contextmanager
def cannot_save(valkey: Valkey, store: redis.Redis) -> Iterator[None]:
    """MISCONF: the disk takes no snapshot. A folder lies where the file should be."""
    in_the_way = valkey.folder / "dump.rdb"
    in_the_way.unlink(missing_ok=True)
    in_the_way.mkdir()
    store.config_set("save", "3600 1000000")
    store.bgsave()
    wait_until(lambda: store.info("persistence")["rdb_last_bgsave_status"] == "err", 10, "the save fails")
    try:
        yield
    finally:
        in_the_way.rmdir()
        store.bgsave()
        wait_until(
            lambda: store.info("persistence")["rdb_last_bgsave_status"] == "ok", 10, "the save succeeds"
        )
        store.config_set("save", "")


@contextmanager
def out_of_memory(valkey: Valkey, store: redis.Redis) -> Iterator[None]:
    """OOM: maxmemory is reached, and nothing may be evicted."""
    store.config_set("maxmemory-policy", "noeviction")
    store.config_set("maxmemory", "1mb")
    try:
        yield
    finally:
        store.config_set("maxmemory", "0")


@contextmanager
def too_few_replicas(valkey: Valkey, store: redis.Redis) -> Iterator[None]:
    """NOREPLICAS: writes are taken only while a replica is there, and none is."""
    store.config_set("min-replicas-to-write", "1")
    try:
        yield
    finally:
        store.config_set("min-replicas-to-write", "0")


@contextmanager
def another_password(valkey: Valkey, store: redis.Redis) -> Iterator[None]:
    """NOAUTH: somebody has set a password and told nobody."""
    store.config_set("requirepass", "secret")
    store.client_kill_filter(_type="normal", skipme=True)
    try:
        yield
    finally:
        store.config_set("requirepass", "")


REFUSALS: dict[str, Fault] = {
    "OOM": out_of_memory,
    "MISCONF": cannot_save,
    "READONLY": read_only,
    "NOREPLICAS": too_few_replicas,
}
"""Redis answers and takes no writes; by the code word it says."""


def everything(store: Client, pattern: str = "*") -> dict[bytes, tuple[bytes | None, int]]:
    """Every key, its value and when it ends (Unix milliseconds), to compare with later."""
    return {key: (store.dump(key), store.pexpiretime(key)) for key in store.scan_iter(pattern, count=1000)}
