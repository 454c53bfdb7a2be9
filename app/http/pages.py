"""Pages for people: the API's documentation, and what each problem means. Nothing on them is loaded from
anywhere else, and no script stands in a page itself."""

import re
from importlib.resources import files
from typing import Any, Final

from flask import Blueprint, Flask, Response, abort, redirect, render_template, send_from_directory
from flask.typing import ResponseReturnValue
from markupsafe import Markup, escape

from app.errors import PROBLEMS
from app.http.application import current

PAGE_FILES: Final = frozenset({"page.css", "icon.svg"})
"""What every page needs."""
DOCS_FILES: Final = frozenset({"docs.css", "docs.js"})
SWAGGER_UI_FILES: Final = frozenset({"swagger-ui.css", "swagger-ui-bundle.js"})
"""What the documentation needs of flask-swagger-ui's copy of Swagger UI."""

PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI's own pictures are data: URLs in its style sheet; it talks to this API and to nothing else."""

CODE = re.compile("`([^`]+)`")

pages = Blueprint("pages", __name__)
docs = Blueprint("docs", __name__)


def install(app: Flask, *, with_docs: bool) -> None:
    """The pages of problems, and, where the operator wants it, the documentation of the API."""
    app.register_blueprint(pages)
    if with_docs:
        app.register_blueprint(docs)
    app.context_processor(lambda: {"with_docs": with_docs})


@docs.get("/")
def home() -> ResponseReturnValue:
    """A person who opens the service finds its documentation."""
    return redirect("/docs")


@docs.get("/docs")
def swagger_ui() -> ResponseReturnValue:
    """Swagger UI."""
    return _page("docs.html")


@docs.get("/docs/<name>")
def docs_file(name: str) -> ResponseReturnValue:
    """A file that the documentation needs."""
    if name in DOCS_FILES:
        return _own_file(name)
    if name not in SWAGGER_UI_FILES:
        abort(404)
    return _file("flask_swagger_ui", "dist", name)


@pages.get("/pages/<name>")
def page_file(name: str) -> ResponseReturnValue:
    """A file that every page needs."""
    return _own_file(name) if name in PAGE_FILES else abort(404)


@pages.get("/problems/<slug>")
def problem(slug: str) -> ResponseReturnValue:
    """What the `type` of a problem means, for a person."""
    found = PROBLEMS.get(slug) or abort(404)
    return _page("problem.html", problem=found, explanation=_with_code(found.explanation))


def _own_file(name: str) -> Response:
    return _file("app", "static", name)


def _file(package: str, folder: str, name: str) -> Response:
    """A file, or a part of it, or that the client has it already."""
    conditional = _dates_can_be_read()
    return send_from_directory(str(files(package).joinpath(folder)), name, conditional=conditional)


def _dates_can_be_read() -> bool:
    """Whether Werkzeug can compare the dates of the request; it trips over a time zone of many digits."""
    request = current()
    try:
        _ = request.if_modified_since, request.if_range
    except OverflowError:
        return False
    return True


def _page(template: str, **context: Any) -> Response:
    response = Response(render_template(template, **context))
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    return response


def _with_code(text: str) -> Markup:
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped, and our own text
