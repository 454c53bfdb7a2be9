"""The store of the code under test, on the server that a test's own client talks to."""

from typing import Any

import redis

from app.storage.connections import Connections
from app.storage.line import Line
from app.storage.scripts import SCRIPTS
from app.storage.storage import Storage
from app.storage.url import RedisUrl
from app.storage.watchdog import Watchdog
from tests.support.values import text


def storage_of(client: redis.Redis, timeout_s: float = 5.0) -> Storage:
    """Another way to the same data: as the service goes it."""
    options = client.connection_pool.connection_kwargs
    return Storage(f"redis://{options['host']}:{options['port']}/{options.get('db', 0)}", timeout_s)


def line_to(url: str, timeout_s: float = 2.0) -> Line:
    """One connection to one server."""
    return Line(Connections(RedisUrl.read(url), timeout_s).connect(), Watchdog(timeout_s))


class FakeStorage(Storage):
    """What services need of a store, on fakeredis."""

    def __init__(self, client: redis.Redis) -> None:  # opens no connection
        self._client = client

    def command(self, *words: Any) -> Any:
        return self._client.execute_command(*words)

    def run(self, call: tuple[Any, ...]) -> Any:
        script = SCRIPTS[type(call)]
        return self._client.eval(text(script.text), *script.arguments(call))
