"""Redis: every server of it; may we write, and is the data ours."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from app.cli.doctor import server
from app.cli.doctor.findings import Finding
from app.cli.doctor.server import NO_DISK, REDIS, USE_PRIMARY
from app.config import Settings
from app.errors import StorageUnavailable
from app.repositories.guard import mark
from app.repositories.keys import KEY_CHECK, NAMES_VERSION, Names
from app.storage.storage import Storage

PROBE_MS: Final = 5000
"""Keys of a probe end after this where they cannot be deleted."""

TAGGED, OURS = "{000}:doctor", "cedula:doctor"

LONG_AGO: Final = "1"
"""For PEXPIREAT: a time in the past deletes the key."""

SAY_TIME = "return redis.call('TIME')"

FOR_GOOD: Final = "; then CONFIG REWRITE, or ACL SAVE with an aclfile: else it ends with the next restart."

COMMANDS: Final[tuple[tuple[str, ...], ...]] = (
    ("SET", f"{TAGGED}:a", "1", "PX", str(PROBE_MS)),
    ("SET", OURS, "1", "PX", str(PROBE_MS)),
    ("INCR", f"{TAGGED}:a"),
    ("PEXPIRE", f"{TAGGED}:a", str(PROBE_MS)),
    ("PTTL", f"{TAGGED}:a"),
    ("GET", f"{TAGGED}:a"),
    ("HSET", f"{TAGGED}:b", "field", "1"),
    ("PEXPIRE", f"{TAGGED}:b", str(PROBE_MS)),
    ("HSETNX", f"{TAGGED}:b", "field", "1"),
    ("HINCRBY", f"{TAGGED}:b", "field", "1"),
    ("HGET", f"{TAGGED}:b", "field"),
    ("HMGET", f"{TAGGED}:b", "field"),
    ("HGETALL", f"{TAGGED}:b"),
    ("HDEL", f"{TAGGED}:b", "field"),
    ("PEXPIREAT", f"{TAGGED}:b", LONG_AGO),
    ("ZADD", f"{TAGGED}:c", "1", "member"),
    ("PEXPIRE", f"{TAGGED}:c", str(PROBE_MS)),
    ("ZSCORE", f"{TAGGED}:c", "member"),
    ("ZCARD", f"{TAGGED}:c"),
    ("ZRANGE", f"{TAGGED}:c", "0", "0"),
    ("ZRANGEBYSCORE", f"{TAGGED}:c", "0", "1"),
    ("ZREM", f"{TAGGED}:c", "member"),
    ("RPUSH", f"{TAGGED}:d", "value"),
    ("PEXPIRE", f"{TAGGED}:d", str(PROBE_MS)),
    ("LLEN", f"{TAGGED}:d"),
    ("LINDEX", f"{TAGGED}:d", "0"),
    ("LSET", f"{TAGGED}:d", "0", "other"),
    ("LTRIM", f"{TAGGED}:d", "0", "0"),
    ("LPOP", f"{TAGGED}:d", "1"),
    ("EVAL", SAY_TIME, "1", f"{TAGGED}:a"),
    ("DEL", *(f"{TAGGED}:{name}" for name in "abcd")),
    ("DEL", OURS),
)
"""What the scripts and the repositories call, on keys like theirs. The command after the one that makes a key
gives it an end."""


REFUSED: Final = {
    "READONLY": (
        "Writes are refused: this is a replica.",
        USE_PRIMARY,
    ),
    "OOM": (
        "Writes are refused: memory is full up to maxmemory.",
        "Raise maxmemory, or set NUMBER_TTL so that registrations end. Never let it evict.",
    ),
    "MISCONF": (
        "Writes are refused, because Redis cannot write to its disk: the disk is full, or not writable.",
        NO_DISK,
    ),
    "NOREPLICAS": (
        "Writes are refused: fewer replicas are connected than min-replicas-to-write asks for.",
        "Bring the replicas back, or lower min-replicas-to-write.",
    ),
}
"""By Redis' word for it: what is wrong, and the cure."""


def examine(settings: Settings, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Everything about Redis. Where a server cannot be reached, that alone."""
    with server.connected(settings) as storage:
        try:
            servers = storage.servers()
            for each in servers:
                server.ping(each)
        except StorageUnavailable as error:
            yield server.unreachable(error.code, settings)
            return
        yield REDIS.ok("It answers.")
        for each in servers:
            yield from server.examine(each, settings)
        yield _writes(storage)
        yield from _key(storage, settings)
        yield from server.examine_clock(servers[0], clock)


def _writes(storage: Storage) -> Finding:
    """Does what the service does, on keys of its own, and tells which commands are refused.

    All in one write, so that the keys are deleted even where a command is refused or this process is killed.
    """
    try:
        refusals = storage.refusals(COMMANDS)
    except StorageUnavailable as error:
        return _refused(error.code)
    # Where RPUSH is forbidden, LSET finds no list: ERR.
    explained = ("", "NOPERM", "ERR") if "NOPERM" in refusals else ("",)
    if other := next((code for code in refusals if code not in explained), None):
        return _refused(other)
    tried = [(name, code) for (name, *_), code in zip(COMMANDS, refusals, strict=True)]
    forbidden = dict.fromkeys(name for name, code in tried if code == "NOPERM")
    allowed = {name for name, code in tried if code != "NOPERM"}
    if not forbidden:
        return REDIS.ok("It takes our writes, and the ACL allows every command.")
    if not allowed or allowed & forbidden.keys():  # a command on one key and not on another: it is the keys
        return REDIS.problem(
            "The ACL keeps us from our keys.", f"Allow them: ACL SETUSER <user> ~{{*}}:* ~cedula:*{FOR_GOOD}"
        )
    return REDIS.problem(
        f"The ACL forbids {len(forbidden)} of the commands we use.",
        f"Allow them: ACL SETUSER <user> {' '.join(f'+{name.lower()}' for name in forbidden)}{FOR_GOOD}",
    )


def _refused(code: str) -> Finding:
    other = (f"Writes are refused ({code}).", "Look at the log of Redis; try SET with redis-cli.")
    return REDIS.problem(*REFUSED.get(code, other))


def _key(storage: Storage, settings: Settings) -> Iterator[Finding]:
    try:
        found: bytes | None = storage.command("GET", KEY_CHECK)
    except StorageUnavailable:
        return
    ours = mark(Names(settings.index_key or None), seals=bool(settings.secret_key))
    if found is None:
        yield REDIS.ok("It holds no data of ours yet.")
    elif found == ours:
        yield REDIS.ok("The data was written with our keys.")
    elif not found.endswith(b":%d" % NAMES_VERSION):
        yield REDIS.problem(
            "The data was written by a version that named things otherwise: the service does not start.",
            "See docs/operate.md, Versions of the layout.",
        )
    elif b":sealed:" in found and not settings.secret_key:
        yield REDIS.problem(
            "The data is sealed, and SECRET_KEY is not set: the service does not start.",
            "Set SECRET_KEY (and INDEX_KEY, where it was set) to what it was when the data was written.",
        )
    elif b":clear:" in found and settings.secret_key:
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
