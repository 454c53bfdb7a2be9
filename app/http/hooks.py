"""For every request: the bound on its body; afterwards its id goes into the answer, a line into the log,
facts into metrics and traces.

May import `application`, `bodies` and `telemetry`.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, Response

from app.http.application import current
from app.http.bodies import MAX_BODY_BYTES, discard_body
from app.telemetry import logs
from app.telemetry.metrics import Metrics
from app.telemetry.traces import Traces

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""A client may invent a method; the log and the metrics then say "other"."""

NOT_TRACED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Probes and scrapes ask for these every few seconds."""


def install(app: Flask, metrics: Metrics, traces: Traces) -> None:
    """Gives every answer its request id, and every request its log line, its metrics and its span."""
    if traces.on:
        app.wsgi_app = _traced(app.wsgi_app, traces)  # type: ignore[method-assign] # Flask's documented way, as in auth
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.merge_slashes = False  # a path with `//` is another path: no redirect

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
        facts = {
            "request_id": request.request_id,
            "caller": request.caller,
            "method": method,
            "route": route,
            "status": status,
            "duration_ms": round(duration_s * 1000, 2),
        }
        if traces.on and (traceparent := traces.answered(route, method, status)):
            facts["traceparent"] = traceparent
        write_line(facts)
        metrics.answered(route, method, status, duration_s, request.caller)
        return response

    app.after_request(finish)


def _traced(app: "WSGIApplication", traces: Traces) -> Any:
    """Makes each request a part of the trace that its caller names (W3C Trace Context)."""

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"] in NOT_TRACED:
            return app(environ, start_response)
        with traces.request(environ.get("HTTP_TRACEPARENT", "")):
            return app(environ, start_response)

    return answer
