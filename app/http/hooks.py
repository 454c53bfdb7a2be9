"""What happens before and after every request: request ids, the log line, metrics.

May import `telemetry`, for the metrics.
"""

import re
import secrets
import time

import structlog
from flask import Flask, Response, g, request

from app.http.auth import caller
from app.http.bodies import MAX_BODY_BYTES, discard_body
from app.telemetry.metrics import Metrics

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""A client may invent a method; the log and the metrics then say "other"."""


def install(app: Flask, metrics: Metrics) -> None:
    """Gives every answer its request id, and every request its log line and metrics."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.merge_slashes = False  # a path is what it is; nobody is sent to another one

    write_line = structlog.get_logger().bind().info  # bound once, not for each line

    def begin() -> None:
        g.started = time.perf_counter()
        given = request.headers.get("X-Request-ID")
        g.request_id = given if given and REQUEST_ID.fullmatch(given) else secrets.token_hex(16)

    def finish(response: Response) -> Response:
        request_id, status = g.request_id, response.status_code
        if status >= 400:
            discard_body(request)  # does nothing under our own worker
        response.headers["X-Request-ID"] = request_id
        rule, method, who = request.url_rule, request.method, caller()
        route = rule.rule if rule else "none"
        method = method if method in KNOWN_METHODS else "other"
        duration_s = time.perf_counter() - g.started
        write_line(
            "request",
            request_id=request_id,
            caller=who,
            method=method,
            route=route,
            status=status,
            duration_ms=round(duration_s * 1000, 2),
        )
        metrics.answered(route, method, status, duration_s, who)
        return response

    app.before_request(begin)
    app.after_request(finish)
