"""The playground's page, its files, and the mailbox as the page reads it."""

from dataclasses import asdict

from flask import Flask, Response, abort, jsonify, render_template, request

from dev.mailbox import HOST, Folder, html_part_response

SHOWN = 3
"""Mails in a listing: the newest."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

PREFIX = "/playground"


def create_page(mails: Folder, mailbox_url: str) -> Flask:
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
        limit = request.args.get("limit", SHOWN, type=int)
        return jsonify([asdict(mail) for mail in mails.newest(max(limit, 0))])

    @page.get(f"{PREFIX}/messages/<name>/html")
    def html_part(name: str) -> Response:
        if not mails.has(name):
            abort(404)
        return html_part_response(mails.read(name))

    return page
