"""The service with one more path, for gunicorn: `POST /fork/<how>` forks the worker that answers.

The child lives for some seconds, as programs do that fork: it sleeps, registers an address of its own, sleeps
on and exits. What the service answered there stands in the file that FORK_REPORT names.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import wsgi

CHILD = "child@example.com"
SLEEP_S = 1.5


def live() -> None:
    """What the child does."""
    time.sleep(SLEEP_S)
    answer = wsgi.app.test_client().post("/api/users", json={"email": CHILD, "token": "t0ken"})
    Path(os.environ["FORK_REPORT"]).write_text(str(answer.status_code))
    time.sleep(SLEEP_S)


def by_os() -> None:
    if os.fork() == 0:
        try:
            live()
        finally:
            os._exit(0)


def by_multiprocessing() -> None:
    multiprocessing.get_context("fork").Process(target=live).start()


WAYS: dict[str, Callable[[], None]] = {"/fork/os": by_os, "/fork/multiprocessing": by_multiprocessing}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The service, but for the paths in WAYS."""
    way = WAYS.get(environ["PATH_INFO"])
    if way is None:
        return wsgi.app(environ, start_response)
    way()
    start_response("204 No Content", [])
    return []
