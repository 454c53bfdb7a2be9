"""The API gateway of the diagram: schema in, services, schema out."""

from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request
from flask.typing import ResponseReturnValue

from app.container import Container
from app.errors import AddressRefused, StorageUnavailable
from app.registrations import Delivery, Registration
from app.repositories.users import Draft
from app.schemas import RegistrationAnswer, RegistrationRequest, rfc3339
from app.services.jobs import Answer
from app.web import JsonBlueprint

api = JsonBlueprint("users", __name__, url_prefix="/api", description="Registrations of e-mail addresses")
operations = Blueprint("operations", __name__)


def services() -> Container:
    found: Container = current_app.extensions["cedula"]
    return found


@api.route("/users", methods=["POST"])
@api.arguments(RegistrationRequest)
def register(body: dict[str, Any]) -> ResponseReturnValue:
    """Register an address: it gets one identification number, which reaches the person by e-mail."""
    draft = Draft(body["email"], body["token"], body.get("locale") or services().settings.default_locale)
    asynchronous = prefers_async()
    plan = services().messaging.plan()
    stored = services().registration.register(draft, plan)
    answer = services().messaging.send(stored, plan, wait=not asynchronous)
    if answer is Answer.REFUSED:
        raise AddressRefused("The mail server refused this address for good")
    response = registered(stored.registration, Delivery(answer.value))
    if asynchronous:
        response.headers["Preference-Applied"] = "respond-async"
    return response


def registered(registration: Registration, delivery: Delivery) -> Response:
    """201 when the mail server has accepted the mail, else 202."""
    body = RegistrationAnswer().dump(
        {
            "id": registration.user_id,
            "email": registration.address.email,
            "delivery": delivery,
            "created_at": rfc3339(registration.created_ms),
        }
    )
    response = jsonify(body)
    response.status_code = 201 if delivery is Delivery.SENT else 202
    response.headers["Location"] = f"/api/users/{registration.user_id}"
    return response


def prefers_async() -> bool:
    """RFC 7240: `Prefer: respond-async`, alone or among others."""
    preferences = ",".join(request.headers.getlist("Prefer")).split(",")
    return any(preference.split(";")[0].strip().lower() == "respond-async" for preference in preferences)


@operations.get("/healthz")
def healthz() -> ResponseReturnValue:
    """The process is alive."""
    return jsonify(status="ok")


@operations.get("/readyz")
def readyz() -> ResponseReturnValue:
    """Redis answers and accepts writes. The mail server is reported and does not make us unready."""
    try:
        services().guard.ready()
    except StorageUnavailable:
        return jsonify(status="unavailable", redis="unavailable", smtp=services().messaging.state), 503
    return jsonify(status="ready", redis="ok", smtp=services().messaging.state)
