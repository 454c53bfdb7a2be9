"""What the workers of one gunicorn tell each other: each writes a snapshot a second, any of them reads all.

A snapshot is a file in a folder in memory, written whole or not at all. A worker takes the lowest slot that
is free and goes on with the counts of the slot's former workers, so counters never go back and the number of
files stays bounded. Without a folder, or while it cannot be written, a worker tells what it knows itself; one
that was removed is made anew. Nothing here raises. May import the metrics.
"""

import contextlib
import fcntl
import itertools
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from prometheus_client.core import GaugeMetricFamily, Metric

from app.telemetry.metrics import Series, series_of

FOLDER: Final = "CEDULA_METRICS_FOLDER"
"""Names the folder; set by gunicorn.conf.py."""

SILENT_S: Final = 5.0
"""A worker whose last snapshot is older is taken to hang: what it knew no longer holds. Its counts do."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What a worker knows. `smtp`: `ok`, or what is wrong with the mail server, as it heard last at `smtp_at`
    (monotonic seconds; 0 = never). `threads`: what is wrong with each thread, empty when it is well."""

    breaker_open: bool = False
    smtp: str = "ok"
    smtp_at: float = 0.0
    threads: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`state` is None where the worker is gone or hangs."""

    slot: int
    state: WorkerState | None
    series: Series


class Board:
    """The folder, seen by one worker."""

    def __init__(self) -> None:
        self.slot = 0  # none yet
        self._folder = Path()
        self._pid = 0
        self._locks: list[int] = []  # of the slot, and of the folder where gunicorn has none

    def join(self) -> Series:
        """Takes a slot, where there is none yet; returns the counts of its former workers."""
        folder = os.environ.get(FOLDER)
        if self.slot or not folder:
            return {}
        self._folder = Path(folder)
        try:
            self._take_slot()
        except OSError:
            return {}
        self._pid = os.getpid()
        found = self._read(self._path(self.slot))
        return found.series if found else {}

    def post(self, state: WorkerState, series: Series) -> bool:
        """Writes this worker's snapshot. In a process that it has forked, does nothing. Returns whether the
        folder had been removed and is there again."""
        if not self.slot or self._pid != os.getpid():
            return False
        is_new = False
        content = {
            "pid": self._pid,
            "at": time.monotonic(),
            "state": state,
            "series": [*series.items()],
        }
        with contextlib.suppress(OSError, TypeError):  # TypeError: orjson has met a value that is no JSON
            if os.fstat(self._locks[0]).st_nlink == 0:  # removed: it keeps the slot for us no longer
                self._take_slot()
                is_new = True
            new = self._folder / f"{self.slot}.new"
            new.write_bytes(orjson.dumps(content))
            new.replace(self._path(self.slot))
        return is_new

    def others(self) -> list[Snapshot]:
        """The last snapshots of all other workers, dead ones included."""
        if not self.slot:
            return []
        own = self._path(self.slot)
        try:
            paths = sorted(path for path in self._folder.glob("*.json") if path != own)
        except OSError:
            return []
        return [found for found in map(self._read, paths) if found]

    def _take_slot(self) -> None:
        """Takes a slot, in a folder that is made where there is none. Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(BlockingIOError):  # gunicorn's lasts until its last worker ends
                fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)  # else a gunicorn that starts removes it
            slot_lock, self.slot = self._free_slot()
        except OSError:
            os.close(folder)
            raise
        held, self._locks = self._locks, [slot_lock, folder]
        for lock in held:
            os.close(lock)

    def _free_slot(self) -> tuple[int, int]:
        """The lowest, locked until this process ends, however it ends. Raises OSError."""
        for slot in itertools.count(1):
            lock = os.open(self._folder / f"{slot}.slot", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
            else:
                return lock, slot
        raise AssertionError("count() has no end")

    def _path(self, slot: int) -> Path:
        return self._folder / f"{slot}.json"

    def _read(self, path: Path) -> Snapshot | None:
        """None for a file that is not there, broken or of another version."""
        try:
            content: dict[str, Any] = orjson.loads(path.read_bytes())
            series = series_of(content["series"])
            known = content["state"]
            state = WorkerState(
                bool(known["breaker_open"]),
                str(known["smtp"]),
                float(known["smtp_at"]),
                {str(name): str(fault) for name, fault in known["threads"].items()},
            )
            live = time.monotonic() - content["at"] < SILENT_S and _exists(int(content["pid"]))
            return Snapshot(int(path.stem), state if live else None, series)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def gauges(workers: Iterable[Snapshot]) -> Iterable[Metric]:
    """What each living worker says of itself. `pid` is its slot; empty where it shares nothing."""
    breakers = GaugeMetricFamily(
        "cedula_mail_breaker_open", "1 while this process takes the mail server to be down.", labels=["pid"]
    )
    threads = GaugeMetricFamily(
        "cedula_thread_unwell",
        "1 while a thread of this process has died or hangs.",
        labels=["thread", "pid"],
    )
    for worker in workers:
        if worker.state is not None:
            pid = str(worker.slot or "")
            breakers.add_metric([pid], worker.state.breaker_open)
            for name, fault in worker.state.threads.items():
                threads.add_metric([name, pid], bool(fault))
    return breakers, threads
