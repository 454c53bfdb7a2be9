"""One Redis server: can it be reached; its version, role, memory, persistence and clock."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from typing import Final

from app.cli.doctor.findings import Area, Finding
from app.config import Settings
from app.errors import StorageUnavailable
from app.repositories.census import memory_used
from app.storage import faults
from app.storage.storage import Server, Storage
from app.storage.url import RedisUrl

REDIS, CLOCK = Area("redis"), Area("clock")

OLDEST: Final = (7, 0)
"""The oldest version that the tests run on."""

FULL: Final = 0.8
"""As the alert CedulaStorageFilling."""

MAX_DRIFT_S: Final = 2.0

USE_PRIMARY = "Point REDIS_URL at the primary, or at the sentinels: redis+sentinel://host:port/service."

NO_DISK = (
    "As a rule the disk is full: `df` on the machine of Redis, and make room; writes go on as soon as it can "
    "save again (BGSAVE). Else the folder is not Redis' own; its log says which."
)

UNREACHABLE: Final = {
    "NOAUTH": (
        "Redis asks for a password, and REDIS_URL has none.",
        "Write it as redis://user:password@host:port/0, with special characters percent-encoded.",
    ),
    "WRONGPASS": (
        "Redis refuses the user name or the password.",
        "Compare those in REDIS_URL with `ACL LIST` of Redis; percent-encode special characters.",
    ),
    "LOADING": (
        "Redis is still loading its data.",
        "Wait until it has; `INFO persistence` shows how far it is.",
    ),
    "DENIED": (
        "Redis is in protected mode: it takes no connection from another host without a password.",
        "Give Redis a password (ACL SETUSER, or requirepass) and put it into REDIS_URL.",
    ),
    faults.NO_DATABASE: (
        "There is no such database: the number at the end of REDIS_URL is too high.",
        "Use database 0 (redis://host:port/0), or raise `databases` in redis.conf; 16 is its default.",
    ),
    faults.CERTIFICATE: (
        "The certificate of Redis is not trusted.",
        "Add ?ssl_ca_certs=/path/of/ca.pem to REDIS_URL, and use the host name that the certificate has.",
    ),
    faults.TLS: (
        "REDIS_URL says rediss://, and that port does not speak TLS.",
        "Use the TLS port of Redis, or redis:// in a network that you trust. A firewall looks the same.",
    ),
    faults.NO_MASTER: (
        "No sentinel names a master for the service in REDIS_URL.",
        "Compare hosts and service name with `SENTINEL MASTERS`.",
    ),
    faults.NO_NODE: (
        "REDIS_URL says redis+cluster://, and no cluster answers there.",
        "Use redis:// for a single server; else check that the nodes can be reached and `CLUSTER INFO`.",
    ),
    faults.TIMEOUT: (
        "Redis did not answer in time.",
        "Check host, port and firewall in between; REDIS_TIMEOUT is how long we wait.",
    ),
    faults.REFUSED: (
        "Nothing listens at the host and port in REDIS_URL.",
        "Start Redis, or correct host and port.",
    ),
    faults.UNKNOWN_HOST: (
        "The host name in REDIS_URL is unknown.",
        "Correct it, or check the DNS of this machine.",
    ),
    faults.CLOSED: (
        "Redis closes the connection at once.",
        "If the port speaks TLS, write rediss://; if not, look for maxclients in the log of Redis.",
    ),
}
"""By the code of the fault (`app.storage.faults`): what is wrong, and the cure."""


def connected(settings: Settings) -> AbstractContextManager[Storage]:
    """Redis, as long as the block lasts. Its faults become findings, so they are not logged."""
    return closing(Storage(settings.redis_url, settings.redis_timeout_s, logs=False))


def ping(server: Server) -> None:
    """Raises StorageUnavailable where the server cannot be reached. Any other refusal is an answer: a Redis
    that cannot write to its disk refuses even PING (MISCONF), which is reported with the writes."""
    try:
        server.command("PING")
    except StorageUnavailable as error:
        if error.code in UNREACHABLE or error.code.islower():
            raise


def unreachable(code: str, settings: Settings) -> Finding:
    if code == faults.TIMEOUT and RedisUrl.read(settings.redis_url).tls:
        code = faults.TLS
    other = (f"Redis cannot be used ({code}).", "Look at its log; compare REDIS_URL with it.")
    return REDIS.problem(*UNREACHABLE.get(code, other))


def examine(server: Server, settings: Settings) -> Iterator[Finding]:
    """What the server tells of itself by INFO and CONFIG."""
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
    yield _version(info)
    if info.get("role") == "slave":
        yield REDIS.problem("This is a replica; it takes no writes.", USE_PRIMARY)
    if int(info.get("connected_slaves", 0)) < settings.redis_wait_replicas:
        yield REDIS.problem(
            f"REDIS_WAIT_REPLICAS asks for {settings.redis_wait_replicas} replicas, and "
            f"{info.get('connected_slaves', 0)} are connected: registrations are answered 503.",
            "Bring the replicas back, or lower REDIS_WAIT_REPLICAS.",
        )
    yield from _memory(info)
    yield from _persistence(server, info)


def _version(info: dict[str, str]) -> Finding:
    said = info.get("redis_version", "0")
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {said}"
    if tuple(int(part) for part in said.split(".")[:2]) < OLDEST:
        return REDIS.warning(
            f"{name} is older than what Cedula is tested with.", "Use Redis 7.0 or newer, or Valkey."
        )
    return REDIS.ok(f"{name} is new enough.")


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
        yield REDIS.problem("Redis could not write to its disk the last time.", NO_DISK)
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


def examine_clock(server: Server, clock: Callable[[], float]) -> Iterator[Finding]:
    try:
        before = clock()
        seconds, micros = server.command("TIME")
    except StorageUnavailable:
        return
    drift_s = (before + clock()) / 2 - (int(seconds) + int(micros) / 1_000_000)
    if abs(drift_s) > MAX_DRIFT_S:
        yield CLOCK.warning(
            f"Our clock is {abs(drift_s):.0f} s {'ahead of' if drift_s > 0 else 'behind'} that of Redis; "
            "mails and answers show times of both.",
            "Let NTP (chrony, systemd-timesyncd) set the clock on both machines.",
        )
    else:
        yield CLOCK.ok("Our clock and that of Redis agree.")
