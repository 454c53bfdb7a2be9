"""SIGHUP to gunicorn, and waiting until every worker has obeyed."""

import signal

from tests.support.metrics import at_work, folders_of
from tests.support.servers import Gunicorn
from tests.support.waiting import wait_until


def reload(service: Gunicorn, workers: int = 1) -> None:
    """Reloads, and returns when no worker is left that was there before."""
    wait_for_workers(service, workers)
    before = {*service.workers()}
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not before & {*service.workers()}, 90, "all workers are new")
    wait_for_workers(service, workers)


def wait_for_workers(service: Gunicorn, workers: int) -> None:
    """Until each serves: gunicorn loses a signal to a worker that is still starting."""
    wait_until(lambda: _are_at_work(service, workers), 90, "all are at work")


def _are_at_work(service: Gunicorn, workers: int) -> bool:
    now = {*service.workers()}
    try:
        return len(now) == workers and all(now <= at_work(folder) for folder in folders_of(service))
    except FileNotFoundError:  # of a worker that ended just now
        return False
