"""The OpenAPI 3.1 document: every status, header and media type of the API, and nothing else.

flask-smorest makes it of the routes, their schemas, and the operations below, which `Blueprint.doc` takes.
May import `schemas`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apispec import BasePlugin
from flask import Flask
from flask_smorest import Api, Blueprint
from werkzeug.routing import BaseConverter

from app.domain.registration import USER_ID
from app.errors import PROBLEMS, RETRY_AFTER_S, Problem
from app.http.schemas import (
    IDEMPOTENCY_KEY_PATTERN,
    HealthAnswer,
    MailAnswer,
    ProblemAnswer,
    ReadinessAnswer,
    ReadinessProblem,
    RegistrationAnswer,
    ReportByMessageId,
    ReportByTag,
    UserAnswer,
    VerificationAnswer,
)
from app.version import VERSION

EXAMPLE_ID = "m4xkwq7hd2n5tzvbc6ayr3gejo"
"""A user id like any other."""

EXAMPLE_TAG = "ujlm4xkwq7hd2n5tzvbc6ayr3gejot46gduviaap6yyguyyu7uex"
"""A tag like any other."""

Json = dict[str, Any]

DESCRIPTION = """\
Registers people by e-mail address for other services. Hand in an address and a token: the person gets one
identification number by e-mail, and by no other way. Hand in the number that the person typed: the token
comes back, once, and you know that whoever typed it has read that mailbox.

The `token` is your own data, such as the number of an order or what the person has entered. It is no
credential of this service: it opens nothing, and nobody looks into it.

A number can be mailed again (`resend`). Where an answer is lost, the same request with the same
`Idempotency-Key` gets it again, for a registration and for a verification.

Every answer carries `X-Request-ID` and `Cache-Control: no-store`. Every error is an RFC 9457 problem; its
`type` is a page that explains it. Answers may grow: ignore members that you do not know."""

BEARER: Json = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key that the operator made with `flask --app wsgi keys new NAME`.",
}

HEADERS: Mapping[str, Json] = {
    "X-Request-ID": {
        "description": "Names this request in the log. The caller's own, where it is 1 to 64 characters of "
        "`A-Z a-z 0-9 . _ -`.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "Cache-Control": {
        "description": "Nothing here may be kept.",
        "required": True,
        "schema": {"type": "string", "const": "no-store"},
    },
    "Location": {
        "description": "Where the registration can be looked up.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference", "pattern": f"^/api/users/{USER_ID}$"},
        "example": f"/api/users/{EXAMPLE_ID}",
    },
    "Preference-Applied": {
        "description": "RFC 7240: there when `Prefer: respond-async` was asked for.",
        "schema": {"type": "string", "const": "respond-async"},
    },
    "Retry-After": {
        "description": "Seconds after which the same may succeed.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
        "example": RETRY_AFTER_S,
    },
    "WWW-Authenticate": {
        "description": "RFC 6750.",
        "required": True,
        "schema": {"type": "string", "const": "Bearer"},
    },
}


def header_parameter(name: str, description: str, **schema: Any) -> Json:
    """A parameter object: a header that a request may have."""
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string", **schema}}


REQUEST_ID = header_parameter(
    "X-Request-ID",
    "Your name for this request, for both logs: 1 to 64 characters of `A-Z a-z 0-9 . _ -`. Anything else is "
    "replaced.",
)

IDEMPOTENCY_KEY = header_parameter(
    "Idempotency-Key",
    "A name of your choice for this registration of this address (a UUID, say). A repetition with the same "
    "key, token and locale gets the same answer, and makes no second number and no second mail.",
    pattern=IDEMPOTENCY_KEY_PATTERN,
    maxLength=255,
)

VERIFICATION_KEY = header_parameter(
    "Idempotency-Key",
    "A name that you draw at random for this handing in (a UUID). Where the answer was lost, the same key, "
    "address and number bring it again for two minutes; that costs no try. A name that can be guessed, or is "
    "made of the number, lets others guess the number meanwhile.",
    pattern=IDEMPOTENCY_KEY_PATTERN,
    maxLength=255,
)

PREFER = header_parameter(
    "Prefer", "RFC 7240. `respond-async`: answer 202 at once, without waiting for the mail server."
)

REGISTERED: Json = {
    "id": EXAMPLE_ID,
    "email": "ada@example.com",
    "status": "registered",
    "delivery": "sent",
    "created_at": "2026-11-22T16:53:29.123Z",
    "expires_at": "2026-11-23T16:53:29.123Z",
}

LOOKED_UP: Json = {**REGISTERED, "mailed_at": "2026-11-22T16:53:29.391Z", "mail_attempts": 1}

SHOWN: Json = {
    "to": "ada@example.com",
    "from": "Acme Shop <no-reply@acme.example>",
    "subject": "Confirm your e-mail address for Acme Shop (KV)",
    "text": "...",
    "html": "<!DOCTYPE html>...",
    "number": "4821093753",
    "locale": "en",
}

LINKS: Json = {
    "look up": {"operationId": "getUser", "parameters": {"user_id": "$response.body#/id"}},
    "resend": {"operationId": "resendMail", "parameters": {"user_id": "$response.body#/id"}},
    "erase": {"operationId": "eraseUser", "parameters": {"user_id": "$response.body#/id"}},
}


def answer(description: str, schema: Any = None, example: Any = None, *headers: str, **more: Any) -> Json:
    """A response object. Without a schema it has no body."""
    found: Json = {"description": description, "headers": _headers(*headers), **more}
    if schema is not None:
        found["content"] = {"application/json": {"schema": schema, "example": example}}
    return found


PROBLEM_HEADERS: Mapping[int, Sequence[str]] = {
    401: ["WWW-Authenticate"],
    409: ["Retry-After"],
    429: ["Retry-After"],
    503: ["Retry-After"],
}

MEMBERS: Mapping[str, Json] = {
    "invalid-request": {"errors": {"email": ["Not a valid e-mail address."]}},
    "verification-failed": {"tries_left": 4},
}
"""Examples of what a problem says beyond the usual."""


def problems(
    *slugs: str, schema: type[ProblemAnswer] = ProblemAnswer, members: Mapping[str, Json] = MEMBERS
) -> dict[int, Json]:
    """The responses that are these problems, one for each status."""
    by_status: dict[int, list[Problem]] = {}
    for slug in slugs:
        by_status.setdefault(PROBLEMS[slug].status, []).append(PROBLEMS[slug])
    return {
        status: {
            "description": " · ".join(f"`{each.slug}`: {each.title}" for each in found),
            "headers": _headers(*PROBLEM_HEADERS.get(status, ())),
            "content": {
                "application/problem+json": {
                    "schema": schema,
                    "examples": {
                        each.slug: {"value": each.members | members.get(each.slug, {})} for each in found
                    },
                }
            },
        }
        for status, found in by_status.items()
    }


def operation(operation_id: str, responses: Mapping[int, Json], *parameters: Json, **more: Any) -> Json:
    """An operation object, for `Blueprint.doc`."""
    described = {"operationId": operation_id, "responses": responses, "parameters": [*parameters, REQUEST_ID]}
    return described | more


class SortedResponses(BasePlugin):
    """Operations list their statuses in ascending order."""

    def operation_helper(self, path: Any = None, operations: Any = None, **_: Any) -> None:  # noqa: ARG002
        for found in (operations or {}).values():
            found["responses"] = dict(sorted(found["responses"].items(), key=lambda item: int(item[0])))


class OpenApi(Api):  # type: ignore[misc] # flask-smorest has no types
    """flask-smorest's document, without a default error: the problems of every operation are named."""

    DEFAULT_ERROR_RESPONSE_NAME = None


class UserIdConverter(BaseConverter):
    """A user id in a path: nothing else looks like one, `verify` least of all."""

    regex = USER_ID


def install(app: Flask, blueprints: Iterable[Blueprint], *, is_open: bool) -> None:
    """Registers the blueprints that the document describes, and serves it at /openapi.json.

    `is_open`: nobody needs a key; one that is sent all the same does no harm.
    """
    app.config["OPENAPI_URL_PREFIX"] = "/"
    app.url_map.converters["user_id"] = UserIdConverter
    document = OpenApi(
        app,
        spec_kwargs={
            "title": "Cedula",
            "version": VERSION,
            "openapi_version": "3.1.0",
            "extra_plugins": [SortedResponses()],
            "info": {"description": DESCRIPTION, "summary": "One address, one number, one mail."},
            "servers": [{"url": "/"}],
            "components": {
                "headers": HEADERS,
                "securitySchemes": {"bearer": BEARER},
            },
            "security": [{"bearer": []}, *([{}] if is_open else [])],
        },
    )
    document.register_converter(UserIdConverter, lambda _: {"type": "string", "pattern": f"^{USER_ID}$"})
    for blueprint in blueprints:
        document.register_blueprint(blueprint)
    for unused in UNUSED_SCHEMAS:  # generators of clients would make classes of them
        document.spec.components.schemas.pop(unused)


UNUSED_SCHEMAS = ("Error", "PaginationMetadata")
"""What flask-smorest describes, whether or not it occurs."""


def _headers(*names: str) -> Json:
    return {
        name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", "Cache-Control", *names)
    }


EVERYWHERE = ("unauthorized", "too-many-requests", "internal-error")
STORAGE = (*EVERYWHERE, "storage-unavailable")
BODY = ("malformed-json", "bad-request", "body-too-large", "unsupported-media-type", "invalid-request")

REGISTER = operation(
    "registerUser",
    {
        201: answer(
            "Stored, and the mail server has accepted the mail.",
            RegistrationAnswer,
            REGISTERED,
            "Location",
            links=LINKS,
        ),
        202: answer(
            "Stored, and the mail will be sent: the mail server is down, slow or busy, another mail to this "
            "address is on its way, or the caller asked for `respond-async`. Also where the address was "
            "registered again meanwhile: then the newer number is mailed.",
            RegistrationAnswer,
            {**REGISTERED, "delivery": "pending"},
            "Location",
            "Preference-Applied",
            links=LINKS,
        ),
        **problems(
            *STORAGE,
            *BODY,
            "request-in-progress",
            "undeliverable-address",
            "idempotency-key-reused",
            "too-many-registrations",
            "number-space-exhausted",
        ),
    },
    IDEMPOTENCY_KEY,
    PREFER,
)

VERIFY = operation(
    "verifyNumber",
    {
        200: answer(
            "The number is right. The registration is consumed: this answer is given once, and again only to "
            "the same `Idempotency-Key`, for two minutes.",
            VerificationAnswer,
            {"id": EXAMPLE_ID, "email": "ada@example.com", "token": "what you handed in"},
        ),
        **problems(*STORAGE, *BODY, "verification-failed", "mistyped-number", "too-many-attempts"),
    },
    VERIFICATION_KEY,
)

RESEND = operation(
    "resendMail",
    {
        200: answer("The mail server has accepted the mail.", UserAnswer, LOOKED_UP),
        202: answer(
            "The mail will be sent: the same number, with the same end, as for a registration.",
            UserAnswer,
            {**LOOKED_UP, "delivery": "pending"},
            "Preference-Applied",
        ),
        **problems(*STORAGE, "not-found", "undeliverable-address", "too-many-registrations"),
    },
    PREFER,
)

MAIL = operation(
    "getMail",
    {200: answer("The mail.", MailAnswer, SHOWN), **problems(*STORAGE, "not-found")},
)

LOOK_UP = operation(
    "getUser",
    {200: answer("The registration.", UserAnswer, LOOKED_UP), **problems(*STORAGE, "not-found")},
)

ERASE = operation(
    "eraseUser",
    {204: answer("Nothing is stored for this address any more."), **problems(*STORAGE, "not-found")},
)

REPORT = operation(
    "reportMail",
    {
        204: answer("Taken. Also where no mail of this service is meant: then nothing has changed."),
        **problems(*STORAGE, *BODY),
    },
    requestBody={
        "required": True,
        "content": {
            "application/json": {
                "schema": {"oneOf": [ReportByTag, ReportByMessageId]},
                "example": {
                    "message_id": f"<{EXAMPLE_TAG}@acme.example>",
                    "kind": "bounced",
                    "code": "5.1.1",
                },
            },
            "message/rfc822": {
                "schema": {"type": "string", "format": "binary", "minLength": 1},
                "example": f"To: bounce+{EXAMPLE_TAG}@acme.example\r\n...",
            },
        },
    },
)

HEALTHZ = operation(
    "isAlive",
    {
        200: answer("Alive.", HealthAnswer, {"status": "ok", "version": VERSION}),
        **problems("internal-error"),
    },
    security=[],
)

READYZ = operation(
    "isReady",
    {
        200: answer(
            "Redis answers and accepts writes.",
            ReadinessAnswer,
            {"status": "ready", "redis": "ok", "smtp": "ok"},
        ),
        **problems("internal-error"),
        **problems(
            "storage-unavailable",
            "not-ready",
            schema=ReadinessProblem,
            members={
                "storage-unavailable": {"redis": "unavailable", "smtp": "ok", "threads": []},
                "not-ready": {"redis": "ok", "smtp": "ok", "threads": ["outbox-relay"]},
            },
        ),
    },
    security=[],
)

METRICS = operation(
    "getMetrics",
    {
        200: {
            "description": "Prometheus text format; nothing personal is in it.",
            "headers": _headers(),
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **problems("unauthorized", "internal-error"),
    },
)
