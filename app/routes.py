"""The API gateway of the diagram: schema in, services, schema out."""

import re
from typing import Any

from flask import Response, current_app, g
from flask.typing import ResponseReturnValue
from marshmallow import ValidationError
from werkzeug.routing import BaseConverter

from app.container import Container
from app.domain.registration import Cause, Delivery, Draft, UserRecord
from app.errors import PROBLEMS, StorageUnavailable
from app.http import openapi
from app.http.auth import caller
from app.http.bodies import JsonBlueprint, current_request
from app.http.problems import problem_response
from app.http.responses import json_response
from app.http.schemas import (
    IDEMPOTENCY_KEY_PATTERN,
    RegistrationRequest,
    UserAnswer,
    VerificationRequest,
    rfc3339,
)
from app.telemetry.metrics import CONTENT_TYPE

api = JsonBlueprint("users", __name__, url_prefix="/api", description="Registrations of e-mail addresses")
operations = JsonBlueprint("operations", __name__, description="For those who run the service")

IDEMPOTENCY_KEY = re.compile(IDEMPOTENCY_KEY_PATTERN)


class UserIdConverter(BaseConverter):
    """A user id in a path: nothing else looks like one, `verify` least of all."""

    regex = "[a-z2-7]{26}"


def services() -> Container:
    found: Container = current_app.extensions["cedula"]
    return found


@api.route("/users", methods=["POST"])
@openapi.REGISTER
@api.arguments(RegistrationRequest)
def register(body: dict[str, Any]) -> ResponseReturnValue:
    """Register an address: it gets one identification number, which reaches the person by e-mail."""
    draft = Draft(body["email"], body["token"], body.get("locale") or services().settings.default_locale)
    outcome = services().registration.register(
        draft, Cause(g.request_id, caller()), wait=not prefers_async(), idempotency_key=idempotency_key()
    )
    return registered(outcome.user_id, draft, outcome.delivery, outcome.created_ms)


@api.route("/users/verify", methods=["POST"])
@openapi.VERIFY
@api.arguments(VerificationRequest)
def verify(body: dict[str, Any]) -> ResponseReturnValue:
    """Hand in the number that the person typed: the token comes back, once."""
    user_id, draft = services().verification.verify(body["email"], body["number"])
    return json_response({"id": user_id, "email": draft.address.email, "token": draft.token})


@api.route("/users/<user_id:user_id>", methods=["GET"])
@openapi.LOOK_UP
def look_up(user_id: str) -> ResponseReturnValue:
    """What is known of a registration: above all, where its mail stands. Consumes nothing."""
    return json_response(described(services().registration.find(user_id)))


@api.route("/users/<user_id:user_id>", methods=["DELETE"])
@openapi.ERASE
def erase(user_id: str) -> ResponseReturnValue:
    """Erase everything of an address, but its budgets."""
    services().registration.erase(user_id)
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


@operations.get("/healthz")
@openapi.HEALTHZ
def healthz() -> ResponseReturnValue:
    """The process is alive."""
    return json_response({"status": "ok"})


@operations.get("/readyz")
@openapi.READYZ
def readyz() -> ResponseReturnValue:
    """Redis answers and accepts writes, and relay and senders live. The mail server is only reported."""
    smtp = services().messaging.state
    try:
        services().guard.ready()
    except StorageUnavailable:
        return problem_response(PROBLEMS["storage-unavailable"], more={"redis": "unavailable", "smtp": smtp})
    if unwell := services().unwell():
        return problem_response(PROBLEMS["not-ready"], more={"redis": "ok", "smtp": smtp, "threads": unwell})
    return json_response({"status": "ready", "redis": "ok", "smtp": smtp})


@operations.get("/metrics")
@openapi.METRICS
def metrics() -> ResponseReturnValue:
    """What the service has counted, for Prometheus. Nothing personal."""
    return Response(services().monitoring.exposition(), content_type=CONTENT_TYPE)


def registered(user_id: str, draft: Draft, delivery: Delivery, created_ms: int) -> Response:
    """201 when the mail server has accepted the mail, else 202."""
    body = {  # as RegistrationAnswer says, but not through it: that takes ten times as long
        "id": user_id,
        "email": draft.address.email,
        "status": "registered",
        "delivery": delivery.value,
        "created_at": rfc3339(created_ms),
    }
    response = json_response(body, 201 if delivery is Delivery.SENT else 202)
    response.headers["Location"] = f"/api/users/{user_id}"
    if delivery is not Delivery.SENT and prefers_async():
        response.headers["Preference-Applied"] = "respond-async"
    return response


def described(user: UserRecord) -> Any:
    times = {"expires_at": user.expires_ms, "mailed_at": user.mailed_ms}
    body = {
        "id": user.user_id,
        "email": user.email,
        "delivery": user.delivery,
        "created_at": rfc3339(user.created_ms),
        "mail_attempts": user.attempts,
        **{name: rfc3339(moment) for name, moment in times.items() if moment is not None},
        **({"mail_error": user.error} if user.error else {}),
    }
    return UserAnswer().dump(body)


def prefers_async() -> bool:
    """RFC 7240: `Prefer: respond-async`, alone or among others."""
    preferences = current_request().headers.getlist("Prefer")
    return any(
        preference.split(";")[0].strip().lower() == "respond-async"
        for preference in ",".join(preferences).split(",")
        if preference
    )


def idempotency_key() -> str:
    """The Idempotency-Key, empty when none was sent. Raises ValidationError for one that is no key."""
    key = current_request().headers.get("Idempotency-Key")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise ValidationError({"Idempotency-Key": ["Must be 1 to 255 visible ASCII characters."]})
    return key or ""
