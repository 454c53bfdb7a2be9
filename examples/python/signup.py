"""A sign-up page whose addresses Cedula confirms, in one file to copy. docs/integrate.md explains it."""

import json
import os
import secrets
import time
from datetime import UTC, datetime
from typing import Any, NoReturn

import requests
from flask import Flask, Response, abort, flash, redirect, render_template_string, request, session, url_for
from standardwebhooks import Webhook, WebhookVerificationError
from werkzeug.wrappers import Response as AnyResponse

CEDULA = os.environ.get("CEDULA_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("CEDULA_KEY", "")  # the API key of your service: it stays on the server
EVENTS_SECRET = os.environ.get("CEDULA_EVENTS_SECRET", "")  # whsec_..., as in `events_secrets`

app = Flask(__name__)
app.secret_key = os.environ.get("SITE_SECRET") or secrets.token_hex()
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"

accounts: dict[str, str] = {}  # names by id, which is unique; an address is not. Your database
mails: dict[tuple[str, str], str] = {}  # what became of the last mail of a registration. Your database, too

WORDS = {
    "invalid-request": "Please check the address.",
    "undeliverable-address": "No mail reaches this address. Is it spelled right?",
    "too-many-registrations": "This address has had many mails. Please try again in {minutes} min.",
    "mistyped-number": "This number has a typing error. Please compare it with the mail.",
    "verification-failed": "This is not the number of the newest mail. Tries left: {tries_left}.",
    "too-many-attempts": "These were too many wrong numbers. Please try again in {minutes} min.",
    "not-found": "This number has ended, or was used. Please begin again.",
    "idempotency-key-reused": "This form was sent before. Please send it once more.",
    "ended": "This number has ended. Please begin again.",
    "elsewhere": "This address was entered elsewhere. Please begin again.",
}
BEGIN_AGAIN = ("not-found", "ended", "elsewhere")
NEWS = {
    "sent": "The mail has left. Look into your spam folder, too.",
    "failed": "The mail could not be delivered. Is the address right?",
    "bounced": "The mail came back. Is the address right?",
}


def refuse(slug: str, unclear: bool = False, **values: Any) -> NoReturn:
    """The form once more, with what is wrong. `unclear`: it may be done, so the form keeps its key."""
    step = ADDRESS if slug in BEGIN_AGAIN or request.path == "/" else NUMBER
    fault = WORDS.get(slug, "This did not work. Please try again in a moment.").format(**values)
    abort(Response(page(step, fault, request.form.get("once") if unclear else None), 422))


def cedula(path: str, body: dict[str, Any] | None = None, once: str = "") -> dict[str, Any]:
    """The answer to a POST. With `once`, the Idempotency-Key, an unclear one is asked for again for 8 s."""
    headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}
    headers |= {"Idempotency-Key": once} if once else {}
    until = None
    while True:
        problem, wait_s = {}, 1
        try:
            answer = requests.post(f"{CEDULA}{path}", json=body, headers=headers, timeout=15)
            if answer.ok:
                return dict(answer.json())
            problem, wait = answer.json(), answer.headers.get("Retry-After", "")
            wait_s = int(wait) if wait.isdecimal() else 60  # it may be a date
        except requests.RequestException:
            app.logger.exception("Cedula does not answer")
        unclear = problem.get("status", 503) in (409, 500, 502, 503, 504)
        until = until or time.monotonic() + 8
        if not once or not unclear or time.monotonic() + wait_s > until:
            break
        time.sleep(wait_s)
    can_mend = "email" in problem.get("errors", ["email"])  # of the fields, the person knows this one
    slug = str(problem.get("type", "")).rpartition("/")[2] if can_mend else ""
    if slug not in WORDS:
        app.logger.error("Cedula: %s", problem)
    refuse(slug, unclear, tries_left=problem.get("tries_left", "some"), minutes=-(-wait_s // 60))


@app.before_request
def begin() -> AnyResponse | None:
    """Step 1 comes first, and on our own page: others cannot send these forms in somebody's name."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        abort(403)
    late = request.endpoint in ("ask_number", "resend", "verify")
    return redirect(url_for("ask")) if late and "signup" not in session else None


@app.get("/")
def ask() -> str:
    """Step 1: name and address."""
    return page(ADDRESS)


@app.post("/")
def register() -> AnyResponse:
    """The number is mailed. What the person entered waits in Cedula, as the token, until it comes back."""
    name, email, once = (request.form.get(field, "").strip() for field in ("name", "email", "once"))
    body = {
        "email": email,
        "token": json.dumps({"name": name, "once": once}),
        "locale": request.accept_languages.best_match(["en", "es", "pt", "fr", "de", "it", "ar"], "en"),
    }
    session["signup"] = {**cedula("/api/users", body, once), "once": once}
    return redirect(url_for("ask_number"), 303)


@app.get("/number")
def ask_number() -> str:
    """Step 2: the number."""
    return page(NUMBER)


@app.post("/resend")
def resend() -> AnyResponse:
    """The same number by a new mail."""
    signup = session["signup"]
    if cedula(f"/api/users/{signup['id']}/resend")["created_at"] != signup["created_at"]:
        refuse("elsewhere")
    flash("We have sent it again.")
    return redirect(url_for("ask_number"), 303)


@app.post("/number")
def verify() -> AnyResponse:
    """The right number brings the token back, and with it what the person entered."""
    signup = session["signup"]
    if "expires_at" in signup and datetime.fromisoformat(signup["expires_at"]) < datetime.now(UTC):
        refuse("ended")
    body = {"email": signup["email"], "number": request.form.get("number", "")}
    confirmed = cedula("/api/users/verify", body, request.form.get("once", ""))
    entered = json.loads(confirmed["token"])
    if entered["once"] != signup["once"]:  # somebody else's sign-up with this address
        refuse("elsewhere")
    accounts[confirmed["id"]] = entered["name"]  # here the address is confirmed, and by no event
    session["account"] = confirmed["id"]
    return redirect(url_for("welcome"), 303)


@app.get("/welcome")
def welcome() -> str | AnyResponse:
    """The account is there."""
    return page(WELCOME) if session.get("account") in accounts else redirect(url_for("ask"))


@app.post("/hooks/cedula")
def told() -> tuple[str, int]:
    """An event: what became of a mail or a registration. It may come twice; 2xx takes it."""
    if not EVENTS_SECRET:
        abort(404)
    try:
        event = Webhook(EVENTS_SECRET).verify(request.get_data(), dict(request.headers))
    except (WebhookVerificationError, ValueError):
        abort(400)
    about = (event["data"]["id"], event["data"]["created_at"])
    mails[about] = event["type"].removeprefix("registration.")
    if mails[about] in ("verified", "expired"):
        del mails[about]  # nothing more will be told of it
    return "", 204


def page(step: str, fault: str = "", once: str | None = None) -> str:
    """HTML. A form has a `once`, so that it is one request however often it is sent."""
    signup = session.get("signup", {})
    news = NEWS.get(mails.get((signup.get("id"), signup.get("created_at")), ""), "")
    name, once = accounts.get(session.get("account", ""), ""), once or secrets.token_urlsafe()
    return render_template_string(FRAME + step, fault=fault, news=news, signup=signup, name=name, once=once)


FRAME = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Sign up</title>
<meta name="viewport" content="width=device-width"><style>
  :root { color-scheme: light dark; background: Canvas; font: 1.1rem/1.5 system-ui, sans-serif }
  body { max-width: 26rem; margin: 3rem auto; padding: 0 1rem }
  form, label { display: grid; gap: .5rem; margin: 1rem 0 } input, button { font: inherit; padding: .5rem }
  [role=alert] { border-left: .3rem solid #c0341d; padding-left: .7rem }
</style><main>{% if fault %}<p role="alert">{{ fault }}</p>{% endif %}"""
ADDRESS = """<h1>Sign up</h1>
<form method="post" action="{{ url_for('register') }}">
  <label>Name <input name="name" autocomplete="name" required maxlength="100"
    value="{{ request.form.name }}"></label>
  <label>E-mail
    <input name="email" type="email" autocomplete="email" required value="{{ request.form.email }}"></label>
  <input type="hidden" name="once" value="{{ once }}">
  <button>Send me a number</button></form>"""
NUMBER = """<h1>Look into your mailbox</h1>
<p>Your identification number is on its way to {{ signup.email }}.</p>
<p role="status">{{ get_flashed_messages() | join(" ") }} {{ news }}</p>
<form method="post" action="{{ url_for('verify') }}" onsubmit="this.lastElementChild.disabled = true">
  <label>Identification number
    <input name="number" autocomplete="one-time-code" inputmode="numeric" required
      value="{{ request.form.number }}"></label>
  <input type="hidden" name="once" value="{{ once }}">
  <button>Confirm</button></form>
<form method="post" action="{{ url_for('resend') }}"><button>Send it again</button></form>
<p><a href="{{ url_for('ask') }}">Another address</a></p>"""
WELCOME = "<h1>Welcome, {{ name }}</h1><p>Your address is confirmed.</p>"

if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
