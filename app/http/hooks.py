"""What happens before and after every request: request ids, the log line, metrics."""

import re
import secrets
import time

import structlog
from flask import Flask, Response, current_app, g

from app.http import problems
from app.http.auth import caller
from app.http.bodies import MAX_BODY_BYTES, current_request, discard_body
from app.telemetry.metrics import Metrics

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = structlog.get_logger()


def install(app: Flask) -> None:
    """Gives an app request ids, log lines and problems."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.merge_slashes = False  # a path is what it is; nobody is sent to another one
    app.before_request(_begin)
    app.after_request(_finish)
    problems.install(app)


def _begin() -> None:
    g.started = time.perf_counter()
    given = current_request().headers.get("X-Request-ID", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def _finish(response: Response) -> Response:
    req, status, request_id = current_request(), response.status_code, g.request_id
    if status >= 400:
        discard_body(req)
    response.headers["X-Request-ID"] = request_id
    route = req.url_rule.rule if req.url_rule is not None else "none"
    method = req.method if req.method in KNOWN_METHODS else "other"
    duration_s = time.perf_counter() - g.started
    log.info(
        "request",
        request_id=request_id,
        method=method,
        route=route,
        status=status,
        duration_ms=round(duration_s * 1000, 2),
    )
    _metrics().answered(route, method, status, duration_s, caller())
    return response


def _metrics() -> Metrics:
    found: Metrics = current_app.extensions["cedula"].metrics
    return found


KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Others are the client's own words and stay out of the log and the metrics."""
