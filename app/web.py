"""What every request and answer has in common: request ids, strict JSON bodies, problems, the log line."""

import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from typing import Any, NoReturn

import orjson
import structlog
from flask import Flask, Request, Response, current_app, g, request
from flask.typing import ResponseReturnValue
from flask_smorest import Blueprint
from marshmallow import ValidationError
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, HTTPException, InternalServerError, RequestEntityTooLarge

from app.errors import (
    PROBLEMS,
    RETRY_AFTER_S,
    SLUGS,
    CedulaError,
    MalformedJson,
    Problem,
    Unauthorized,
    UnsupportedMediaType,
)
from app.lean import JsonResponse
from app.metrics import Metrics

JSON = "application/json"

MAX_BODY_BYTES = 64 * 1024
DISCARD_AT_MOST_BYTES = 16 * 1024 * 1024
"""Of a body that is refused, so much is read away: a client that still sends would not see the answer."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

HTTP_PROBLEMS: Mapping[int, str] = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
    415: "unsupported-media-type",
    500: "internal-error",
}

View = Callable[..., ResponseReturnValue]

log = structlog.get_logger()


class JsonParser(FlaskParser):
    """Reads bodies as `read_json` does, and nothing but bodies.

    webargs' own way through a request, with a new schema for each, costs a tenth of a registration.
    """

    def use_args(self, argmap: Any, *_: Any, **__: Any) -> Callable[[View], View]:
        """Hands a view what the schema makes of the body, after its other arguments."""
        schema = argmap() if isinstance(argmap, type) else argmap

        def decorator(view: View) -> View:
            @wraps(view)
            def wrapper(*args: Any, **kwargs: Any) -> ResponseReturnValue:
                return view(*args, schema.load(read_json(current_request())), **kwargs)

            return wrapper

        return decorator


class JsonBlueprint(Blueprint):  # type: ignore[misc]
    """A flask-smorest blueprint whose bodies are read strictly."""

    ARGUMENTS_PARSER = JsonParser()


def read_json(req: Request) -> Any:
    """The JSON value of a body. Raises UnsupportedMediaType, MalformedJson, RequestEntityTooLarge."""
    if req.content_type != JSON:
        charset = req.mimetype_params.get("charset", "utf-8").lower()
        if req.mimetype != JSON or charset not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMediaType("The body must be application/json in UTF-8")
    if req.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("The body must not have a content coding")
    try:
        return _DECODER.decode(read_body(req).decode())
    except (ValueError, RecursionError) as error:
        raise MalformedJson("The body is not valid JSON") from error


def read_body(req: Request) -> bytes:
    """The bytes of a body. Raises RequestEntityTooLarge, and BadRequest where the client breaks off."""
    length, broken_off, cut_off = req.environ.get("CONTENT_LENGTH", ""), False, False
    try:
        if length.isdecimal() and int(length) <= MAX_BODY_BYTES:  # as Werkzeug would, in fewer steps
            body: bytes = req.environ["wsgi.input"].read(int(length))
            broken_off = len(body) < int(length)
        else:
            body = req.get_data(cache=False)
            # Of a chunked body that is too large, Werkzeug only cuts the rest off.
            cut_off = len(body) == MAX_BODY_BYTES and bool(req.environ["wsgi.input"].read(1))
    except HTTPException:
        raise
    except Exception as error:  # every server has its own for chunks that are none
        raise BadRequest from error
    if broken_off:
        raise BadRequest
    if cut_off:
        raise RequestEntityTooLarge
    return body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 8259 §4: names should be unique; two readers of a repeated one may see two different requests."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("repeated name")
    return found


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def current_request() -> Request:
    """The request itself: `flask.request` would look for it again at every attribute."""
    found: Request = request._get_current_object()  # type: ignore[attr-defined]
    return found


def json_response(body: Mapping[str, Any], status: int = 200) -> JsonResponse:
    """An answer in JSON."""
    return JsonResponse(orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE), status, content_type=JSON)


def problem_response(
    problem: Problem, headers: Mapping[str, str] | None = None, more: Mapping[str, Any] | None = None
) -> Response:
    """An RFC 9457 answer. `more`: members beyond the usual four."""
    body: dict[str, Any] = {
        "type": f"/problems/{problem.slug}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.explanation,
        **(more or {}),
    }
    # Not with orjson: a field's name may be a lone surrogate, which only escapes can carry.
    response = JsonResponse(json.dumps(body) + "\n", problem.status, content_type="application/problem+json")
    if problem.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    response.headers.update(headers or {})
    _metrics().problem(problem.slug)
    return response


def install(app: Flask) -> None:
    """Gives an app request ids, log lines and problems."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.merge_slashes = False  # a path is what it is; nobody is sent to another one
    app.before_request(_begin)
    app.after_request(_finish)
    app.register_error_handler(CedulaError, domain_problem)
    app.register_error_handler(ValidationError, _validation_problem)
    app.register_error_handler(HTTPException, _http_problem)
    app.register_error_handler(Exception, _unforeseen_problem)


def _begin() -> None:
    g.started = time.perf_counter()
    given = current_request().headers.get("X-Request-ID", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def _finish(response: Response) -> Response:
    req, status, request_id = current_request(), response.status_code, g.request_id
    if status >= 400:
        _discard_body(req)
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
    _metrics().answered(route, method, status, duration_s)
    return response


def _metrics() -> Metrics:
    found: Metrics = current_app.extensions["cedula"].metrics
    return found


KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Others are the client's own words and stay out of the log and the metrics."""


def domain_problem(error: CedulaError) -> Response:
    """The answer that a domain error becomes."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    slug = SLUGS.get(type(error))
    if slug is None:
        return _unforeseen_problem(error)
    return problem_response(PROBLEMS[slug], headers=headers)


def _validation_problem(error: ValidationError) -> Response:
    return problem_response(PROBLEMS["invalid-request"], more={"errors": error.messages_dict})


def _http_problem(error: HTTPException) -> ResponseReturnValue:
    if error.code is None or error.code < 400:
        return error.get_response()
    if isinstance(error, InternalServerError):
        return _unforeseen_problem(error.original_exception or error)
    slug = HTTP_PROBLEMS.get(error.code, "bad-request")
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    return problem_response(PROBLEMS[slug], headers=headers)


def _unforeseen_problem(error: BaseException) -> Response:
    log.error("unforeseen", request_id=g.get("request_id"), exception=error)
    return problem_response(PROBLEMS["internal-error"])


def _discard_body(req: Request) -> None:
    """Reads the rest of a body that was refused: closing on unread data would cost the client the answer."""
    stream, left = req.environ["wsgi.input"], DISCARD_AT_MOST_BYTES
    with suppress(Exception):  # as in `read_body`; the answer is known already
        while left > 0 and (chunk := stream.read(min(left, 65_536))):
            left -= len(chunk)
