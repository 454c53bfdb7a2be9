"""What every answer has: JSON as orjson writes it, and the security headers."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from flask import Response
from flask.json.provider import JSONProvider

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

WHOLE = frozenset({200, 201, 202})
"""Statuses of answers that have a body and lead nowhere else."""


class SecureResponse(Response):
    """An answer that carries the security headers it does not set itself.

    They are added to the finished headers, and where Werkzeug would find nothing to correct in the others, it
    is not asked to: copying and checking each takes 3 % of a registration for these, and 3 % for those.
    """

    def get_wsgi_response(
        self, environ: "WSGIEnvironment"
    ) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        own = {name for name, _ in self.headers}
        if self.status_code in WHOLE and "Content-Length" in own:
            body, status, headers = self.get_app_iter(environ), self.status, [*self.headers]
        else:
            body, status, headers = super().get_wsgi_response(environ)
        headers += [header for header in SECURITY_HEADERS.items() if header[0] not in own]
        return body, status, headers


class Orjson(JSONProvider):
    """Flask's documented way to another JSON library."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return orjson.dumps(obj, option=orjson.OPT_APPEND_NEWLINE).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        return orjson.loads(s)
