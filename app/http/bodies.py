"""Request bodies: read strictly and bounded, and what becomes of them: a view's argument, a report of a mail.

May import `application`, `schemas`, `domain`, `errors` and `mail.reports`.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

from flask import Request
from flask_smorest import Blueprint
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

from app.domain.report import TAG, Report, ReportKind, failure
from app.errors import MalformedJson, UnsupportedMediaType
from app.http.application import current
from app.http.schemas import ReportByMessageId, ReportByTag
from app.mail import reports

JSON = "application/json"

MESSAGE = "message/rfc822"

MAX_BODY_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 1024 * 1024
"""Of a message in a body; the largest mail servers return a large mail whole, and ours are small."""

DISCARD_AT_MOST_BYTES = 16 * 1024 * 1024
"""Drains at most this much of a rejected body: a client that still sends would not see the answer."""

DRAINED_BY_WORKER = "cedula.drains"
"""A WSGI key by which a server says that it drains rejected bodies itself, as gunicorn_worker.py does."""


def read_json(req: Request) -> Any:
    """The JSON value of a body. Raises UnsupportedMediaType, MalformedJson, RequestEntityTooLarge, and
    BadRequest where the client breaks off."""
    if req.content_type != JSON:
        charset = req.mimetype_params.get("charset", "utf-8").lower()
        if req.mimetype != JSON or charset not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMediaType("The body must be application/json in UTF-8")
    try:
        return _DECODER.decode(_read(req, MAX_BODY_BYTES).decode())
    except (ValueError, RecursionError) as error:
        raise MalformedJson("The body is not valid JSON") from error


def read_report(req: Request) -> Report:
    """What a body reports, as a message or as JSON. Raises ValidationError, and what `read_json` raises."""
    if req.mimetype == MESSAGE:
        message = _read(req, MAX_MESSAGE_BYTES)
        if not message:
            raise ValidationError({"body": ["Must be a message."]})
        return reports.read(message)
    found = read_json(req)
    by_id = isinstance(found, dict) and "message_id" in found
    body = (ReportByMessageId() if by_id else ReportByTag()).load(found)
    kind, code = ReportKind(body["kind"]), body.get("code", "")
    if kind is ReportKind.BOUNCED:
        kind = failure(code)
    return Report(kind, code, tuple(TAG.findall(body["message_id" if by_id else "tag"])))


def _read(req: Request, at_most: int) -> bytes:
    """The bytes of a body. Raises UnsupportedMediaType for a content coding, RequestEntityTooLarge, and
    BadRequest where the client breaks off."""
    if req.environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise UnsupportedMediaType("The body must not have a content coding")
    length, too_short, goes_on = req.environ.get("CONTENT_LENGTH", ""), False, False
    try:
        if length.isdecimal() and int(length) <= at_most:  # the common case, in fewer steps than Werkzeug's
            body: bytes = req.environ["wsgi.input"].read(int(length))
            too_short = len(body) < int(length)
        else:
            # Werkzeug refuses a length over the limit. Of a chunked body it returns what is within the limit,
            # and says nothing.
            req.max_content_length = at_most
            body = req.get_data(cache=False)
            goes_on = len(body) == at_most and bool(req.environ["wsgi.input"].read(1))
    except HTTPException:
        raise
    except Exception as error:  # every server has its own for chunks that are none
        raise BadRequest from error
    if too_short:
        raise BadRequest
    if goes_on:
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


def discard_body(req: Request) -> None:
    """Reads the rest of a body that was refused: closing on unread data would cost the client the answer.

    Our own gunicorn worker does that better, after the answer and for a moment only: there `Answer` decides
    whether the connection ends, and `Connection.part` drains it (gunicorn_worker.py).
    """
    if DRAINED_BY_WORKER in req.environ:
        return
    stream, left = req.environ["wsgi.input"], DISCARD_AT_MOST_BYTES
    with suppress(Exception):  # as in `_read`; the answer is known already
        while left > 0 and (chunk := stream.read(min(left, 65_536))):
            left -= len(chunk)


class StrictParser(FlaskParser):
    """webargs' parser, which reads by `read_json`. What a schema refuses is a plain ValidationError."""

    def get_default_request(self) -> Request:
        return current()

    def load_json(self, req: Request, schema: Schema) -> Any:  # noqa: ARG002 - webargs' signature
        return read_json(req)

    def handle_error(
        self,
        error: ValidationError,
        req: Request,  # noqa: ARG002
        schema: Schema,  # noqa: ARG002
        *,
        error_status_code: int | None,  # noqa: ARG002
        error_headers: Mapping[str, str] | None,  # noqa: ARG002
    ) -> NoReturn:
        """webargs has put the messages under the place of the argument, which is always the body."""
        raise ValidationError(error.messages_dict["json"])


class StrictBlueprint(Blueprint):  # type: ignore[misc] # flask-smorest has no types
    """A flask-smorest blueprint whose bodies are read strictly."""

    ARGUMENTS_PARSER = StrictParser()
