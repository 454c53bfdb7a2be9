"""The service with one more path, for gunicorn: `POST /kill/<part>` kills the thread that next does that."""

from collections.abc import Callable, Iterable
from typing import Any

from gevent import GreenletExit

import wsgi

OUTBOX = wsgi.app.extensions["cedula"].outbox
PARTS = {"/kill/relay": "hold_relay", "/kill/sender": "settle"}


def kill(method: str) -> None:
    """The next call of the outbox's method raises what gevent kills greenlets with."""
    usual = getattr(OUTBOX, method)

    def dies(*_: Any, **__: Any) -> Any:
        setattr(OUTBOX, method, usual)
        raise GreenletExit

    setattr(OUTBOX, method, dies)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The service, but for the paths in PARTS."""
    method = PARTS.get(environ["PATH_INFO"])
    if method is None:
        found: Iterable[bytes] = wsgi.app(environ, start_response)
        return found
    kill(method)
    start_response("204 No Content", [])
    return []
