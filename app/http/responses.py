"""Flask and Werkzeug without the steps that other applications need and every request here would pay for."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from flask import Flask, Response
from werkzeug.datastructures import Headers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

SECURITY_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer; a page that needs more says so itself."""


class SecureResponse(Response):
    """An answer that carries the security headers it does not set itself."""

    def get_wsgi_response(
        self, environ: "WSGIEnvironment"
    ) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        body, status, headers = super().get_wsgi_response(environ)
        own = {name for name, _ in headers}
        headers += [header for header in SECURITY_HEADERS.items() if header[0] not in own]
        return body, status, headers


class JsonResponse(SecureResponse):
    """An answer whose headers stand as they are: Werkzeug would look for a Location in other than ASCII and
    for a length that is not known, which takes longer than writing the answer."""

    def get_wsgi_headers(self, environ: "WSGIEnvironment") -> Headers:  # noqa: ARG002 - Werkzeug's signature
        return self.headers


class LeanFlask(Flask):
    """Flask that takes every function for a synchronous one, instead of looking at each again for each
    request."""

    response_class = SecureResponse

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func


def json_response(body: Mapping[str, Any], status: int = 200) -> JsonResponse:
    """An answer in JSON."""
    return JsonResponse(
        orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE), status, content_type="application/json"
    )
