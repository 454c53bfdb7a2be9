"""Request bodies: read strictly, and bounded. Imports nothing of the app but its errors."""

import json
from contextlib import suppress
from typing import Any, NoReturn

from flask import Request
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

from app.errors import MalformedJson, UnsupportedMediaType

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
    """The JSON value of a body. Raises UnsupportedMediaType, MalformedJson, RequestEntityTooLarge."""
    if req.content_type != JSON:
        charset = req.mimetype_params.get("charset", "utf-8").lower()
        if req.mimetype != JSON or charset not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMediaType("The body must be application/json in UTF-8")
    _refuse_coding(req)
    try:
        return _DECODER.decode(read_body(req).decode())
    except (ValueError, RecursionError) as error:
        raise MalformedJson("The body is not valid JSON") from error


def _refuse_coding(req: Request) -> None:
    if req.environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise UnsupportedMediaType("The body must not have a content coding")


def read_message(req: Request) -> bytes:
    """The bytes of a body that is a message. Raises RequestEntityTooLarge, UnsupportedMediaType."""
    _refuse_coding(req)
    req.max_content_length = MAX_MESSAGE_BYTES
    return read_body(req, MAX_MESSAGE_BYTES)


def read_body(req: Request, at_most: int = MAX_BODY_BYTES) -> bytes:
    """The bytes of a body. Raises RequestEntityTooLarge, and BadRequest where the client breaks off."""
    length, broken_off, cut_off = req.environ.get("CONTENT_LENGTH", ""), False, False
    try:
        if length.isdecimal() and int(length) <= at_most:  # as Werkzeug would, in fewer steps
            body: bytes = req.environ["wsgi.input"].read(int(length))
            broken_off = len(body) < int(length)
        else:
            body = req.get_data(cache=False)
            # Of a chunked body that is too large, Werkzeug only cuts the rest off.
            cut_off = len(body) == at_most and bool(req.environ["wsgi.input"].read(1))
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


def discard_body(req: Request) -> None:
    """Reads the rest of a body that was refused: closing on unread data would cost the client the answer.

    Our own gunicorn worker does that better, after the answer and for a moment only: there `Answer` decides
    whether the connection ends, and `Connection.part` drains it (gunicorn_worker.py).
    """
    if DRAINED_BY_WORKER in req.environ:
        return
    stream, left = req.environ["wsgi.input"], DISCARD_AT_MOST_BYTES
    with suppress(Exception):  # as in `read_body`; the answer is known already
        while left > 0 and (chunk := stream.read(min(left, 65_536))):
            left -= len(chunk)
