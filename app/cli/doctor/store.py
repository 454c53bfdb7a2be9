"""Redis: can it be reached, does it keep what it is given, may we write, is the data ours; and the clock."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import redis
from redis.cluster import RedisCluster
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
)
from redis.sentinel import MasterNotFoundError

from app.cli.doctor.findings import Area, Finding
from app.config import Settings
from app.repositories.guard import mark
from app.repositories.keys import KEY_CHECK, Names
from app.storage.scripts import connect

REDIS = Area("redis")
CLOCK = Area("clock")

OLDEST: Final = (7, 0)
"""What the tests run on, and newer."""

PROBE_MS: Final = 5000
"""What a probe writes is gone after this, should it not be deleted."""

FULL: Final = 0.8
MAX_DRIFT_S: Final = 2.0

TAGGED, OURS = "{000}:doctor", "cedula:doctor"
ERRORS: Final = (redis.RedisError, RedisClusterException, OSError)
"""redis-py's errors of a cluster are no RedisErrors."""

LONG_AGO: Final = "1"
"""For PEXPIREAT, which then deletes."""

SAY_TIME = "return redis.call('TIME')"

COMMANDS: Final[tuple[tuple[str, ...], ...]] = (
    ("SET", f"{TAGGED}:a", "1", "PX", str(PROBE_MS)),
    ("SET", OURS, "1", "PX", str(PROBE_MS)),
    ("INCR", f"{TAGGED}:a"),
    ("PEXPIRE", f"{TAGGED}:a", str(PROBE_MS)),
    ("PTTL", f"{TAGGED}:a"),
    ("EXISTS", f"{TAGGED}:a"),
    ("GET", f"{TAGGED}:a"),
    ("HSET", f"{TAGGED}:b", "field", "1"),
    ("PEXPIRE", f"{TAGGED}:b", str(PROBE_MS)),
    ("HMGET", f"{TAGGED}:b", "field"),
    ("HGETALL", f"{TAGGED}:b"),
    ("HINCRBY", f"{TAGGED}:b", "field", "1"),
    ("HDEL", f"{TAGGED}:b", "field"),
    ("PEXPIREAT", f"{TAGGED}:b", LONG_AGO),
    ("ZADD", f"{TAGGED}:c", "1", "member"),
    ("PEXPIRE", f"{TAGGED}:c", str(PROBE_MS)),
    ("ZSCORE", f"{TAGGED}:c", "member"),
    ("ZCARD", f"{TAGGED}:c"),
    ("ZRANGE", f"{TAGGED}:c", "0", "0"),
    ("ZRANGEBYSCORE", f"{TAGGED}:c", "0", "1"),
    ("ZREM", f"{TAGGED}:c", "member"),
    ("EVAL", SAY_TIME, "1", f"{TAGGED}:a"),
    ("DEL", f"{TAGGED}:a", f"{TAGGED}:b", f"{TAGGED}:c"),
    ("DEL", OURS),
)
"""What the scripts and the repositories call, on keys like theirs. A key has an end from the command after
the one that makes it."""


def examine(settings: Settings, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Everything about Redis; the first thing that makes the rest pointless ends it."""
    try:
        client = connect(settings.redis_url, settings.redis_timeout_s)
        servers = _primaries(client)
        for server in servers:
            server.ping()
    except NoPermissionError:
        servers = [client]
    except ERRORS as error:
        yield _unreachable(error, tls=settings.redis_url.startswith("rediss:"))
        return
    yield REDIS.ok("It answers.")
    for server in servers:
        yield from _server(server, settings)
    yield from _writes(client)
    yield from _key(client, settings)
    yield from _clock(servers[0], clock)


def _primaries(client: redis.Redis) -> list[redis.Redis]:
    if isinstance(client, RedisCluster):
        return [client.get_redis_connection(node) for node in client.get_primaries()]
    return [client]


def _unreachable(error: Exception, *, tls: bool) -> Finding:
    """Why there is no talking to it. The order matters: special cases first."""
    text = f"{error} {error.__cause__ or ''}".lower()
    if "misconf" in text:  # PING itself is refused then
        return _refused(error)
    for applies, says, cure in (
        (
            any(words in text for words in ("noauth", "authentication required", "already authenticated")),
            "Redis asks for a password, and REDIS_URL has none.",
            "Write it as redis://user:password@host:port/0, with special characters percent-encoded.",
        ),
        (
            isinstance(error, AuthenticationError),
            "Redis refuses the user name or the password.",
            "Compare those in REDIS_URL with `ACL LIST` of Redis; percent-encode special characters.",
        ),
        (
            isinstance(error, BusyLoadingError),
            "Redis is still reading its data.",
            "Wait until it has; `INFO persistence` shows how far it is.",
        ),
        (
            "db index is out of range" in text,
            "There is no such database as REDIS_URL names.",
            "End it in /0; Redis has as many as `databases` in its redis.conf says, and a cluster one.",
        ),
        (
            "certificate" in text,
            "The certificate of Redis is not trusted.",
            "Add ?ssl_ca_certs=/path/of/ca.pem to REDIS_URL, and use the host name that the certificate has.",
        ),
        (
            tls and ("ssl" in text or "timeout" in text or "timed out" in text),
            "REDIS_URL says rediss://, and no TLS is spoken at that port.",
            "Use the TLS port of Redis, or redis:// in a network that you trust. A firewall looks alike.",
        ),
        (
            "protected mode" in text,
            "Redis is in protected mode: it takes no connection from another host without a password.",
            "Give Redis a password (ACL SETUSER, or requirepass) and put it into REDIS_URL.",
        ),
        (
            isinstance(error, MasterNotFoundError),
            "No sentinel names a master for the service in REDIS_URL.",
            "Compare hosts and service name with `SENTINEL MASTERS`.",
        ),
        (
            isinstance(error, RedisClusterException),
            "REDIS_URL says redis+cluster://, and no cluster answers there.",
            "Use redis:// for a single server; else check that the nodes can be reached and `CLUSTER INFO`.",
        ),
        (
            isinstance(error, redis.TimeoutError) or "timed out" in text or "timeout" in text,
            "Redis did not answer in time.",
            "Check host, port and firewall in between; REDIS_TIMEOUT is how long we wait.",
        ),
        (
            "refused" in text,
            "Nothing listens at the host and port in REDIS_URL.",
            "Start Redis, or correct host and port.",
        ),
        (
            "name or service" in text or "resolution" in text or "nodename" in text or "no address" in text,
            "The host name in REDIS_URL is unknown.",
            "Correct it, or see to the DNS of this machine.",
        ),
        (
            "closed" in text,
            "Redis closes the connection at once.",
            "If the port speaks TLS, write rediss://; if not, look for maxclients in the log of Redis.",
        ),
    ):
        if applies:
            return REDIS.problem(says, cure)
    return REDIS.problem(
        f"Redis cannot be used ({type(error).__name__}).", "Look at its log; compare REDIS_URL with it."
    )


def _server(server: redis.Redis, settings: Settings) -> Iterator[Finding]:
    try:
        info: dict[str, Any] = server.info()
    except ERRORS:
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


def _version(info: dict[str, Any]) -> Iterator[Finding]:
    said = str(info.get("redis_version", "0"))
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {said}"
    if tuple(int(part) for part in said.split(".")[:2]) < OLDEST:
        yield REDIS.warning(
            f"{name} is older than what Cedula is tested with.", "Use Redis 7.0 or newer, or Valkey."
        )
    else:
        yield REDIS.ok(f"{name} is new enough.")


def _memory(info: dict[str, Any]) -> Iterator[Finding]:
    policy, limit = info.get("maxmemory_policy", "noeviction"), int(info.get("maxmemory", 0))
    if policy != "noeviction":
        level = REDIS.problem if limit else REDIS.warning
        yield level(
            f"maxmemory-policy is {policy}: Redis throws registrations away when memory runs short.",
            "Set `maxmemory-policy noeviction` in redis.conf and with CONFIG SET.",
        )
    if limit and int(info.get("used_memory", 0)) > FULL * limit:
        yield REDIS.warning(
            f"{info['used_memory'] / limit:.0%} of maxmemory is used; when it is full, writes are refused.",
            "Raise maxmemory, or set NUMBER_TTL so that registrations end.",
        )


def _persistence(server: redis.Redis, info: dict[str, Any]) -> Iterator[Finding]:
    if "err" in (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")):
        yield REDIS.problem(
            "Redis could not write to its disk the last time.",
            "As a rule the disk is full: `df` on the machine of Redis, and make room. Else the folder is not "
            "Redis' own; its log says which.",
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


def _config(server: redis.Redis) -> dict[str, str] | None:
    """None where CONFIG is forbidden, as managed services do."""
    try:
        found = server.config_get("save", "appendfsync")
        return {str(name): str(value or "") for name, value in found.items()}
    except ERRORS:
        return None


def _writes(client: redis.Redis) -> Iterator[Finding]:
    """Does what the service does, on keys of its own, and says which of it is refused.

    All in one write, so that the keys are deleted although a command is refused or this process killed.
    """
    commands, keys = [], False
    pipeline = client.pipeline(transaction=False)
    for command in COMMANDS:
        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
    try:
        answers = pipeline.execute(raise_on_error=False)
    except ERRORS as error:
        yield _refused(error)
        return
    for command, answer in zip(COMMANDS, answers, strict=True):
        if isinstance(answer, NoPermissionError):
            keys = keys or "key" in str(answer).lower()
            commands.append(command[0].lower())
        elif isinstance(answer, Exception):
            yield _refused(answer)
            return
    if keys:
        yield REDIS.problem(
            "The ACL keeps us from our keys.", "Allow them: ACL SETUSER <user> ~{*}:* ~cedula:*"
        )
    elif commands:
        wanted = " ".join(f"+{name}" for name in dict.fromkeys(commands))
        yield REDIS.problem(
            f"The ACL forbids {len(set(commands))} of the commands we use.",
            f"Allow them: ACL SETUSER <user> {wanted}",
        )
    else:
        yield REDIS.ok("It takes our writes, and the ACL allows every command.")


def _refused(error: Exception) -> Finding:
    text = str(error)
    if isinstance(error, ReadOnlyError):
        return REDIS.problem(
            "Writes are refused: this is a replica.",
            "Point REDIS_URL at the primary, or at the sentinels: redis+sentinel://host:port/service.",
        )
    if isinstance(error, OutOfMemoryError) or text.startswith("OOM"):
        return REDIS.problem(
            "Writes are refused: memory is full up to maxmemory.",
            "Raise maxmemory, or set NUMBER_TTL so that registrations end. Never let it evict.",
        )
    if "MISCONF" in text:
        return REDIS.problem(
            "Writes are refused, because Redis cannot write to its disk.",
            "As a rule the disk is full: `df` on the machine of Redis, and make room; writes are taken as "
            "soon as a snapshot succeeds (BGSAVE). Else the folder is not Redis' own; its log says which.",
        )
    if "NOREPLICAS" in text:
        return REDIS.problem(
            "Writes are refused: fewer replicas are connected than min-replicas-to-write asks for.",
            "Bring the replicas back, or lower min-replicas-to-write.",
        )
    return REDIS.problem(
        f"Writes are refused ({type(error).__name__}).", "Look at the log of Redis; try SET with redis-cli."
    )


def _key(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    try:
        found: Any = client.get(KEY_CHECK)
    except ERRORS:
        return
    ours = mark(Names(settings.index_key or None), seals=bool(settings.secret_key))
    if found is None:
        yield REDIS.ok("It holds no data of ours yet.")
    elif found == ours:
        yield REDIS.ok("The data was written with our keys.")
    elif found.endswith(b":sealed") and not settings.secret_key:
        yield REDIS.problem(
            "The data is sealed, and SECRET_KEY is not set: the service does not start.",
            "Set SECRET_KEY (and INDEX_KEY, where it was set) to what it was when the data was written.",
        )
    elif found.endswith(b":clear") and settings.secret_key:
        yield REDIS.problem(
            "The data lies in clear, and SECRET_KEY is set: the service does not start.",
            "Unset SECRET_KEY to serve this data on, or start with an empty Redis.",
        )
    else:
        yield REDIS.problem(
            "The data was written with another index key: the service does not start.",
            "Set INDEX_KEY to the one of the data: the SECRET_KEY of its first day, unless INDEX_KEY was set "
            "then. Or start with an empty Redis.",
        )


def _clock(server: redis.Redis, clock: Callable[[], float]) -> Iterator[Finding]:
    try:
        before = clock()
        seconds, micros = server.time()
        drift_s = (before + clock()) / 2 - (int(seconds) + int(micros) / 1_000_000)
    except ERRORS:
        return
    if abs(drift_s) > MAX_DRIFT_S:
        yield CLOCK.warning(
            f"Our clock is {abs(drift_s):.0f} s {'ahead of' if drift_s > 0 else 'behind'} that of Redis; "
            "mails and answers show times of both.",
            "Let NTP (chrony, systemd-timesyncd) set the clock on both machines.",
        )
    else:
        yield CLOCK.ok("Our clock and that of Redis agree.")
