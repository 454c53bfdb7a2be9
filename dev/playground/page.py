"""The playground's pages, their files, and the mails as the pages read them."""

from flask import Flask, Response, abort, jsonify, render_template, request

from dev.mailbox import HOST, PART_POLICY, Folder, html_part_response, listing_response
from dev.playground.mails import Mails

SHOWN = 3
"""Mails in a listing: the newest."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

PREFIX = "/playground"

SCHEMES = ("light", "dark")


def create_page(mails: Folder, mailbox_url: str, previews: Mails) -> Flask:
    """Serves `/` and everything under `/playground/`; nothing of it comes from anywhere else."""
    page = Flask(__name__, static_url_path=f"{PREFIX}/static")
    page.config["TRUSTED_HOSTS"] = [HOST, "localhost"]  # against DNS rebinding by a site in the same browser

    @page.after_request
    def restrict(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    @page.get("/")
    def index() -> str:
        return render_template("playground.html", mailbox_url=mailbox_url)

    @page.get(f"{PREFIX}/messages.json")
    def messages() -> Response:
        return listing_response(mails, SHOWN)

    @page.get(f"{PREFIX}/messages/<name>/html")
    def html_part(name: str) -> Response:
        return html_part_response(mails, name)

    _add_previews(page, mailbox_url, previews)
    return page


def _add_previews(page: Flask, mailbox_url: str, previews: Mails) -> None:
    """The tab that shows every mail that there can be."""

    @page.get(f"{PREFIX}/mails")
    def mails() -> str:
        return render_template("mails.html", mailbox_url=mailbox_url)

    @page.get(f"{PREFIX}/mails/version")
    def version() -> Response:
        return Response(previews.version(), content_type="text/plain")

    @page.get(f"{PREFIX}/mails.json")
    def all_mails() -> Response:
        return jsonify(previews.of(request.args.get("service", "")))

    @page.get(f"{PREFIX}/mails/<service>/<language>/<any({', '.join(SCHEMES)}):scheme>")
    def preview(service: str, language: str, scheme: str) -> Response:
        html = previews.html(service, language, scheme)
        if html is None:
            abort(404)
        policy = f"{PART_POLICY} https:"  # a logo may be looked at where it is
        return Response(html, headers={"Content-Security-Policy": policy})
