"""The connection to Redis: how it is made, how scripts are called, how its errors are told.

Writes are never repeated by the client library: after a time-out nobody knows whether a script ran, and
only the caller can decide to ask again. A script cache that was lost (restart, SCRIPT FLUSH) is filled
again by redis-py's `Script`: NOSCRIPT says that nothing ran.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import redis
import structlog
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from app.errors import StorageUnavailable

MAX_CONNECTIONS = 4096
"""Connections per process: above any worker's number of requests at once, so none waits for another's."""

log = structlog.get_logger()


def connect(url: str, timeout_s: float) -> redis.Redis:
    """A client that gives up after `timeout_s` seconds and never repeats a command."""
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        max_connections=MAX_CONNECTIONS,
    )


def load_script(client: redis.Redis, name: str) -> Script:
    """The Lua script `lua/<name>.lua`; it is sent to Redis when it is first called."""
    return client.register_script(files(__package__).joinpath("lua", f"{name}.lua").read_text())


def run(script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
    """Calls a script. Raises StorageUnavailable."""
    with storage_errors():
        return script(keys=keys, args=args)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turns whatever Redis or the way to it says into StorageUnavailable.

    Only the kind of error is logged, never its text: an error of a script can quote its arguments.
    """
    try:
        yield
    except redis.RedisError as error:
        log.warning("storage_unavailable", error=error_code(error))
        raise StorageUnavailable("Redis does not answer, or refuses the write") from error


def error_code(error: redis.RedisError) -> str:
    """The error's class, and Redis's own code word (READONLY, OOM, MISCONF …) where it has one."""
    word = str(error).split(" ", 1)[0]
    kind = type(error).__name__
    return f"{kind}:{word}" if word.isalpha() and word.isupper() else kind
