"""What happens before and after every request: request ids, the log line, metrics.

May import `container`, for the metrics.
"""

import re
import secrets
import time

import structlog
from flask import Flask, Response, g, request

from app.container import services
from app.http.auth import caller
from app.http.bodies import MAX_BODY_BYTES, discard_body

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Others are the client's own words and stay out of the log and the metrics."""

log = structlog.get_logger()


def install(app: Flask) -> None:
    """Gives every answer its request id, and every request its log line and metrics."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.merge_slashes = False  # a path is what it is; nobody is sent to another one
    app.before_request(_begin)
    app.after_request(_finish)


def _begin() -> None:
    g.started = time.perf_counter()
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def _finish(response: Response) -> Response:
    request_id, who, status = g.request_id, caller(), response.status_code
    if status >= 400:
        discard_body(request)
    response.headers["X-Request-ID"] = request_id
    rule, method = request.url_rule, request.method
    route = rule.rule if rule else "none"
    method = method if method in KNOWN_METHODS else "other"
    duration_s = time.perf_counter() - g.started
    log.info(
        "request",
        request_id=request_id,
        caller=who,
        method=method,
        route=route,
        status=status,
        duration_ms=round(duration_s * 1000, 2),
    )
    services().metrics.answered(route, method, status, duration_s, who)
    return response
