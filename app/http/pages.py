"""Pages for people: the API's documentation, and what each problem means. Nothing on them is loaded from
anywhere else, and no script stands in a page itself."""

import re
from importlib.resources import files
from typing import Any, Final

from flask import Blueprint, Response, abort, redirect, render_template, send_from_directory
from flask.typing import ResponseReturnValue
from markupsafe import Markup, escape

from app.errors import PROBLEMS

OWN_FILES: Final = frozenset({"docs.js", "page.css"})
SWAGGER_UI_FILES: Final = frozenset({"swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"})
"""What the page needs of flask-swagger-ui's copy of Swagger UI."""

PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI's own pictures are data: URLs in its style sheet; it talks to this API and to nothing else."""

CODE = re.compile("`([^`]+)`")

pages = Blueprint("pages", __name__)


@pages.get("/")
def home() -> ResponseReturnValue:
    """A person who opens the service finds its documentation."""
    return redirect("/docs")


@pages.get("/docs")
def docs() -> ResponseReturnValue:
    """Swagger UI."""
    return _page("docs.html")


@pages.get("/docs/<name>")
def asset(name: str) -> ResponseReturnValue:
    """A file that a page needs."""
    if name in OWN_FILES:
        return send_from_directory(str(files("app").joinpath("static")), name)
    if name not in SWAGGER_UI_FILES:
        abort(404)
    return send_from_directory(str(files("flask_swagger_ui").joinpath("dist")), name)


@pages.get("/problems/<slug>")
def problem(slug: str) -> ResponseReturnValue:
    """What the `type` of a problem means, for a person."""
    found = PROBLEMS.get(slug) or abort(404)
    return _page("problem.html", problem=found, explanation=_with_code(found.explanation))


def _page(template: str, **context: Any) -> Response:
    response = Response(render_template(template, **context))
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    return response


def _with_code(text: str) -> Markup:
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped, and our own text
