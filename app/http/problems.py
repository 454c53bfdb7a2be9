"""Problems: the one place where errors become RFC 9457 answers. May import `container`, for the metrics."""

import json
from collections.abc import Mapping
from typing import Any

import structlog
from flask import Flask, Response
from flask.typing import ResponseReturnValue
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException, InternalServerError

from app.container import services
from app.errors import PROBLEMS, RETRY_AFTER_S, CedulaError
from app.http.application import current

HTTP_PROBLEMS: Mapping[int, str] = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
    415: "unsupported-media-type",
    500: "internal-error",
}

log = structlog.get_logger()


def install(app: Flask) -> None:
    """Makes a problem of every error; replaces the handlers that flask-smorest has installed before."""
    app.register_error_handler(CedulaError, _domain_problem)
    app.register_error_handler(ValidationError, _validation_problem)
    app.register_error_handler(HTTPException, _http_problem)
    app.register_error_handler(Exception, _unforeseen_problem)


def problem_response(slug: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """An RFC 9457 answer. `more`: members beyond the usual four, or in place of one."""
    problem = PROBLEMS[slug]
    # Not with orjson: a field's name may be a lone surrogate, which only escapes can carry.
    body = json.dumps(problem.members | more) + "\n"
    response = Response(body, problem.status, content_type="application/problem+json")
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if problem.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    response.headers.update(headers or {})
    services().metrics.problem(slug)
    return response


def _domain_problem(error: CedulaError) -> Response:
    if PROBLEMS[error.slug].status == 500:
        return _unforeseen_problem(error)
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return problem_response(error.slug, headers, **error.members)


def _validation_problem(error: ValidationError) -> Response:
    return problem_response("invalid-request", errors=error.messages_dict)


def _http_problem(error: HTTPException) -> ResponseReturnValue:
    if isinstance(error, InternalServerError):
        return _unforeseen_problem(error.original_exception or error)
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    return problem_response(HTTP_PROBLEMS.get(error.code or 400, "bad-request"), headers)


def _unforeseen_problem(error: BaseException) -> Response:
    log.error("unforeseen", request_id=current().request_id, exception=error)
    return problem_response("internal-error")
