"""The service with one more path, for gunicorn: `POST /kill/<part>` kills the thread that next does that."""

from collections.abc import Callable, Iterable
from typing import Any

from gevent import GreenletExit

import wsgi

CONTAINER = wsgi.app.extensions["cedula"]
OUTBOX = CONTAINER.outbox
(WATCHDOG,) = (thread for thread in CONTAINER.storage.threads if thread.name == "redis-watchdog")
PARTS = {
    "/kill/relay": (OUTBOX, "hold_relay"),
    "/kill/sender": (OUTBOX, "settle"),
    "/kill/watchdog": (WATCHDOG, "beat"),
}


def kill(whose: Any, method: str) -> None:
    """The next call of the method raises what gevent kills greenlets with."""
    usual = getattr(whose, method)

    def dies(*_: Any, **__: Any) -> Any:
        setattr(whose, method, usual)
        raise GreenletExit

    setattr(whose, method, dies)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The service, but for the paths in PARTS."""
    part = PARTS.get(environ["PATH_INFO"])
    if part is None:
        found: Iterable[bytes] = wsgi.app(environ, start_response)
        return found
    kill(*part)
    start_response("204 No Content", [])
    return []
