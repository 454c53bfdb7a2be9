"""The API gateway of the diagram in docs/architecture.md: schema in, one service, schema out.

A view's decorators are its documentation. May import `http`, `domain` and `container`.
"""

import re
from typing import Any

from flask import Response
from flask.typing import ResponseReturnValue
from marshmallow import ValidationError

from app.container import services
from app.domain.registration import Cause, Delivery, Draft, rfc3339
from app.http import openapi
from app.http.application import Request, current
from app.http.bodies import StrictBlueprint, read_report
from app.http.problems import problem_response
from app.http.schemas import (
    IDEMPOTENCY_KEY_PATTERN,
    MailAnswer,
    RegistrationRequest,
    UserAnswer,
    VerificationRequest,
)
from app.telemetry.metrics import CONTENT_TYPE
from app.version import VERSION

api = StrictBlueprint("users", __name__, url_prefix="/api", description="Registrations of e-mail addresses")
operations = StrictBlueprint("operations", __name__, description="For those who run the service")

IDEMPOTENCY_KEY = re.compile(IDEMPOTENCY_KEY_PATTERN)


@api.post("/users")
@api.doc(**openapi.REGISTER)
@api.arguments(RegistrationRequest())
def register(body: dict[str, Any]) -> ResponseReturnValue:
    """Register an address: it gets one identification number, which reaches the person by e-mail."""
    request = current()
    at_once = prefers_async(request)
    draft = Draft(body["email"], body["token"], body.get("locale", ""), request.service)
    found = services().registration.register(
        draft,
        Cause(request.request_id, request.caller),
        awaited=not at_once,
        idempotency_key=idempotency_key(request),
    )
    answer = {  # as RegistrationAnswer says; dumping through it takes 2 % of a registration
        "id": found.user_id,
        "email": draft.address.email,
        "status": "registered",
        "delivery": str(found.delivery),
        "created_at": rfc3339(found.created_ms),
    }
    if found.expires_ms is not None:
        answer["expires_at"] = rfc3339(found.expires_ms)
    status, headers = status_of(found.delivery, 201, at_once=at_once)
    return answer, status, {"Location": f"/api/users/{found.user_id}", **headers}


@api.post("/users/verify")
@api.doc(**openapi.VERIFY)
@api.arguments(VerificationRequest())
def verify(body: dict[str, Any]) -> ResponseReturnValue:
    """Hand in the number that the person typed: the token comes back, once."""
    request = current()
    handed = services().verification.verify(
        request.service, body["email"], body["number"], idempotency_key(request)
    )
    contents = handed.contents
    return {"id": handed.user_id, "email": contents.address.email, "token": contents.token}


@api.post("/users/<user_id:user_id>/resend")
@api.doc(**openapi.RESEND)
def resend(user_id: str) -> ResponseReturnValue:
    """Mail the live number again: the same number, by a new mail. No body. Counts as a registration does."""
    request = current()
    at_once = prefers_async(request)
    found = services().registration.resend(
        request.service, user_id, Cause(request.request_id, request.caller), awaited=not at_once
    )
    return UserAnswer().dump(found), *status_of(found.delivery, 200, at_once=at_once)


@api.get("/users/<user_id:user_id>")
@api.doc(**openapi.LOOK_UP)
def look_up(user_id: str) -> ResponseReturnValue:
    """What is known of a registration: above all, where its mail stands. Consumes nothing."""
    found: dict[str, Any] = UserAnswer().dump(services().registration.find(user_id, current().service))
    return found


@api.get("/users/<user_id:user_id>/mail")
@api.doc(**openapi.MAIL)
def mail(user_id: str) -> ResponseReturnValue:
    """The mail of a test service, which is shown here instead of being sent. Other services have none."""
    mailed = services().registration.mailed(current().service, user_id)
    found: dict[str, Any] = MailAnswer().dump(services().messages.shown(mailed))
    return found


@api.delete("/users/<user_id:user_id>")
@api.doc(**openapi.ERASE)
def erase(user_id: str) -> ResponseReturnValue:
    """Erase everything of an address, but its budgets."""
    services().registration.erase(user_id, current().service)
    return without_body()


@api.post("/bounces")
@api.doc(**openapi.REPORT)
def report() -> ResponseReturnValue:
    """What became of a mail: a message that a mail server wrote, or the same in JSON."""
    request = current()
    services().reports.take(read_report(request), request.service)
    return without_body()


@operations.get("/healthz")
@operations.doc(**openapi.HEALTHZ)
def healthz() -> ResponseReturnValue:
    """The process is alive."""
    return {"status": "ok", "version": VERSION}


@operations.get("/readyz")
@operations.doc(**openapi.READYZ)
def readyz() -> ResponseReturnValue:
    """Redis answers and accepts writes, and relay and senders live. The mail server is only reported."""
    found = services().monitoring.readiness()
    if found.redis_ok and not found.unwell:
        return {"status": "ready", "redis": "ok", "smtp": found.smtp}
    slug, redis = ("not-ready", "ok") if found.redis_ok else ("storage-unavailable", "unavailable")
    return problem_response(slug, redis=redis, smtp=found.smtp, threads=found.unwell)


@operations.get("/metrics")
@operations.doc(**openapi.METRICS)
def metrics() -> ResponseReturnValue:
    """What the service has counted, for Prometheus. Nothing personal."""
    return Response(services().monitoring.exposition(), content_type=CONTENT_TYPE)


def without_body() -> Response:
    """204."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def prefers_async(request: Request) -> bool:
    """RFC 7240: `Prefer: respond-async`, alone or among others."""
    preferences: str = request.environ.get("HTTP_PREFER", "")  # a repeated header comes joined by commas
    return any(each.split(";")[0].strip().lower() == "respond-async" for each in preferences.split(","))


def status_of(delivery: Delivery, sent: int, *, at_once: bool) -> tuple[int, dict[str, str]]:
    """The status, `sent` or 202, and the header for a preference that was followed (RFC 7240 §3)."""
    if delivery is Delivery.SENT:
        return sent, {}
    return 202, {"Preference-Applied": "respond-async"} if at_once else {}


def idempotency_key(request: Request) -> str:
    """The Idempotency-Key, empty when none was sent. Raises ValidationError for one that is no key."""
    key = request.environ.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise ValidationError({"Idempotency-Key": ["Must be 1 to 255 visible ASCII characters."]})
    return key or ""
