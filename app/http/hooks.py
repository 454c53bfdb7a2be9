"""What happens after every request: its id goes into the answer, a line into the log, facts into the metrics.

May import `bodies`, `request`, and `telemetry` for the metrics.
"""

import time

from flask import Flask, Response

from app.http.bodies import MAX_BODY_BYTES, discard_body
from app.http.request import current
from app.telemetry import logs
from app.telemetry.metrics import Metrics

KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""A client may invent a method; the log and the metrics then say "other"."""


def install(app: Flask, metrics: Metrics) -> None:
    """Gives every answer its request id, and every request its log line and metrics."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.merge_slashes = False  # a path is what it is; nobody is sent to another one

    write_line = logs.writer("request")

    def finish(response: Response) -> Response:
        request, status = current(), response.status_code
        if status >= 400:
            discard_body(request)  # does nothing under our own worker
        response.headers["X-Request-ID"] = request.request_id
        rule, method = request.url_rule, request.method
        route = rule.rule if rule else "none"
        method = method if method in KNOWN_METHODS else "other"
        duration_s = time.perf_counter() - request.started
        write_line(
            {
                "request_id": request.request_id,
                "caller": request.caller,
                "method": method,
                "route": route,
                "status": status,
                "duration_ms": round(duration_s * 1000, 2),
            }
        )
        metrics.answered(route, method, status, duration_s, request.caller)
        return response

    app.after_request(finish)
