"""One Redis server: its version, its role, its memory, and whether it keeps what it is given."""

from collections.abc import Iterator
from typing import Final

from app.cli.doctor.findings import Area, Finding
from app.config import Settings
from app.errors import StorageUnavailable
from app.repositories.census import memory_used
from app.storage.storage import Server

REDIS = Area("redis")

OLDEST: Final = (7, 0)
"""What the tests run on, and newer."""

FULL: Final = 0.8

NO_DISK = (
    "As a rule the disk is full: `df` on the machine of Redis, and make room; writes go on as soon as it can "
    "save again (BGSAVE). Else the folder is not Redis' own; its log says which."
)


def examine(server: Server, settings: Settings) -> Iterator[Finding]:
    """Everything that the server tells of itself."""
    try:
        info = server.info()
    except StorageUnavailable:
        return
    if not info:
        yield REDIS.note(
            "We may not ask for INFO, so version, memory and persistence were not examined.",
            "Allow it (ACL SETUSER ... +info +config|get), or look at docs/redis-keys.md yourself.",
        )
        return
    yield from _version(info)
    if info.get("role") == "slave":
        yield REDIS.problem(
            "This is a replica; it takes no writes.",
            "Point REDIS_URL at the primary, or at the sentinels: redis+sentinel://host:port/service.",
        )
    if int(info.get("connected_slaves", 0)) < settings.redis_wait_replicas:
        yield REDIS.problem(
            f"REDIS_WAIT_REPLICAS asks for {settings.redis_wait_replicas} replicas, and "
            f"{info.get('connected_slaves', 0)} are connected: registrations are answered 503.",
            "Bring the replicas back, or lower REDIS_WAIT_REPLICAS.",
        )
    yield from _memory(info)
    yield from _persistence(server, info)


def _version(info: dict[str, str]) -> Iterator[Finding]:
    said = info.get("redis_version", "0")
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {said}"
    if tuple(int(part) for part in said.split(".")[:2]) < OLDEST:
        yield REDIS.warning(
            f"{name} is older than what Cedula is tested with.", "Use Redis 7.0 or newer, or Valkey."
        )
    else:
        yield REDIS.ok(f"{name} is new enough.")


def _memory(info: dict[str, str]) -> Iterator[Finding]:
    policy, limit = info.get("maxmemory_policy", "noeviction"), int(info.get("maxmemory", 0))
    if policy != "noeviction":
        level = REDIS.problem if limit else REDIS.warning
        yield level(
            f"maxmemory-policy is {policy}: Redis evicts registrations when memory runs short.",
            "Set `maxmemory-policy noeviction` in redis.conf and with CONFIG SET.",
        )
    if (used := memory_used(info)) is not None and used > FULL:
        yield REDIS.warning(
            f"{used:.0%} of maxmemory is used; when it is full, writes are refused.",
            "Raise maxmemory, or set NUMBER_TTL so that registrations end.",
        )


def _persistence(server: Server, info: dict[str, str]) -> Iterator[Finding]:
    if "err" in (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")):
        yield REDIS.problem(
            "Redis could not write to its disk the last time.",
            NO_DISK,
        )
    config = _config(server)
    if not int(info.get("aof_enabled", 0)):
        if config is not None and not config.get("save"):
            yield REDIS.problem(
                "Nothing is persisted: a restart of Redis forgets every registration.",
                "Set `appendonly yes` in redis.conf and with CONFIG SET.",
            )
        else:
            yield REDIS.warning(
                "Only snapshots are kept (appendonly no): a crash of Redis loses the last minutes.",
                "Set `appendonly yes` in redis.conf and with CONFIG SET.",
            )
    elif config is not None and config.get("appendfsync") == "no":
        yield REDIS.warning(
            "appendfsync is no: when the machine fails, the last half minute or so is lost.",
            "Set `appendfsync everysec`, or `always` where not a second may be lost.",
        )
    else:
        every = (config or {}).get("appendfsync", "unknown")
        yield REDIS.ok(f"Writes are kept in the append-only file (appendfsync {every}).")


def _config(server: Server) -> dict[str, str] | None:
    """None where CONFIG is forbidden, as managed services do."""
    try:
        found = server.command("CONFIG", "GET", "save", "appendfsync")
    except StorageUnavailable:
        return None
    return {name.decode(): value.decode() for name, value in found.items()}
