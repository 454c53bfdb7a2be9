"""Logs that cannot be written. Each fault yields the options with which `Gunicorn` gets such a log."""

import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from tests.support.servers import Gunicorn

Options = dict[str, Any]


@contextlib.contextmanager
def full() -> Iterator[Options]:
    """A disk without room: every write raises ENOSPC."""
    output = os.open("/dev/full", os.O_WRONLY)
    try:
        yield {"output": output}
    finally:
        os.close(output)


@contextlib.contextmanager
def unread() -> Iterator[Options]:
    """A pipe whose reader never reads: after 64 KiB a write blocks."""
    reader, output = os.pipe()
    try:
        yield {"output": output}
    finally:
        os.close(output)
        os.close(reader)


@contextlib.contextmanager
def broken() -> Iterator[Options]:
    """A pipe whose reader has gone: every write raises EPIPE."""
    reader, output = os.pipe()
    os.close(reader)
    try:
        yield {"output": output}
    finally:
        os.close(output)


@contextlib.contextmanager
def closed() -> Iterator[Options]:
    """No standard output and no standard error at all."""
    yield {"prefix": ("/bin/sh", "-c", 'exec "$@" >&- 2>&-', "sh")}


FAULTS: Final[dict[str, Callable[[], AbstractContextManager[Options]]]] = {
    "full": full,
    "unread": unread,
    "broken": broken,
    "closed": closed,
}


@contextlib.contextmanager
def file_that_is_full(service: Gunicorn) -> Iterator[None]:
    """The running service's log file takes no more, as on a disk that has filled up; afterwards it does.

    Every file of its processes is bounded so (RLIMIT_FSIZE), the workers' snapshots included.
    """
    processes = [service.process.pid, *service.workers()]
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in processes}
    for pid, (_, most) in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (service.log_path.stat().st_size + 100, most))
    try:
        yield
    finally:
        for pid, limits in before.items():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
