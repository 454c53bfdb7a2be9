"""What `make run` serves: the service as it is deployed, with the playground in front of it.

    PLAYGROUND_MAILS=… PLAYGROUND_MAILBOX=… gunicorn dev.playground.wsgi:app

Every request but those of the playground's own page goes to the service untouched.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flask import Flask

from dev.mailbox import Folder
from dev.playground.mails import Mails
from dev.playground.page import PREFIX, create_page
from dev.playground.timing import Tracer
from wsgi import app as service

Environ = dict[str, Any]

TIMED = "HTTP_CEDULA_PLAYGROUND"
"""A request with this header is timed; the page sends it."""


class Playground:
    """The service, the page at `/`, and a Server-Timing header on what the page asks of the service."""

    def __init__(self, service: Flask, page: Flask, tracer: Tracer) -> None:
        self._service = service
        self._page = page
        self._tracer = tracer

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """PEP 3333."""
        path = environ["PATH_INFO"]
        if path == "/" or path.startswith(f"{PREFIX}/"):
            return self._page(environ, start_response)
        if TIMED in environ:
            return self._timed(environ, start_response)
        return self._service(environ, start_response)

    def _timed(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        with self._tracer.request() as times:

            def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
                return start_response(status, [*headers, ("Server-Timing", times())], *more)

            return self._service(environ, start)


container = service.extensions["cedula"]
folder = Folder(Path(os.environ["PLAYGROUND_MAILS"]))
app = Playground(
    service,
    create_page(folder, os.environ["PLAYGROUND_MAILBOX"], Mails(container.settings)),
    Tracer(container, folder),
)
