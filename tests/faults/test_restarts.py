"""What callers see of a worker that ends."""

import os
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

from tests.support.faults.http import RawClient, head
from tests.support.servers import gunicorn

CALLERS = 250
STOPPED_S = 1.5
"""Longer than the second after which a worker looks whether it should end."""


def test_a_worker_that_ends_answers_whom_the_kernel_gave_to_it(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Their connections are made, but not yet accepted: with SO_REUSEPORT no other worker can do it."""
    request = head("/healthz", method="GET")
    with gunicorn(tmp_path, environment, "--workers", "1") as service, ExitStack() as stack:
        workers = service.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        callers = [stack.enter_context(RawClient(service.port)) for _ in range(CALLERS)]
        for caller in callers:
            caller.send(request)
        threading.Event().wait(STOPPED_S)
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)
        assert [caller.answer()[0] for caller in callers] == [200] * CALLERS
