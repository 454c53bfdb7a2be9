"""What commands of the operator have counted, for the processes that are asked for metrics.

A command serves nobody and ends at once. So its counts wait in Redis until a serving process takes them for
its own: each is told by one process, and sums over all of them are right.
"""

from contextlib import suppress

import orjson

from app.errors import StorageUnavailable
from app.repositories.keys import COUNTS
from app.storage.storage import Storage
from app.telemetry.metrics import Series, add, series_of

WAIT_MS = 86_400_000
"""From the first on, so that they stay few where no process is asked for metrics."""

AT_A_TIME = 1000
"""Commands whose counts are taken at once."""


class Counts:
    """The counts in Redis."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def leave(self, series: Series) -> None:
        """Leaves what was counted. Raises nothing: where Redis refuses, it is not counted."""
        counted = [(key, values) for key, values in series.items() if any(values)]
        with suppress(StorageUnavailable):
            self._storage.command("RPUSH", COUNTS, orjson.dumps(counted))
            self._storage.command("PEXPIRE", COUNTS, WAIT_MS, "NX")

    def take(self) -> Series:
        """Takes what was left; nobody else gets it. Raises StorageUnavailable."""
        found: Series = {}
        for entry in self._storage.command("LPOP", COUNTS, AT_A_TIME) or ():
            with suppress(ValueError, TypeError):  # somebody else wrote it
                add(found, series_of(orjson.loads(entry)))
        return found
