"""A mailbox for one machine: takes every mail over SMTP, keeps it as a file, shows it on a web page.

    python -m dev.mailbox FOLDER --smtp-port 1025 --web-port 8025

Both listen on 127.0.0.1. The page asks nothing of any other server, and a mail's HTML is shown in a
sandbox that may load nothing and run nothing.
"""

import argparse
import itertools
import json
import logging
import secrets
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTPUTF8
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from flask import Flask, Response, abort, g, jsonify, render_template, request
from werkzeug.serving import make_server

HOST = "127.0.0.1"

SHOWN = 100
"""Mails in a listing, unless it is asked for another number: the newest. All of them stay in the folder."""

ENVELOPE = b"X-Envelope: "
"""Begins the first line of every kept file: what only the SMTP envelope knew, as JSON in ASCII."""

PART_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Mail:
    """One mail that arrived."""

    name: str
    """Of its file, without the ending; unique."""
    received_at: str
    sender: str
    """As given in MAIL FROM."""
    recipients: list[str]
    """As given in RCPT TO."""
    language: str
    """As the mail says it (RFC 3282); empty when it does not."""
    subject: str
    text: str
    html: str

    @property
    def local_time(self) -> str:
        """When it arrived, for a person at this machine."""
        return f"{datetime.fromisoformat(self.received_at).astimezone():%Y-%m-%d %H:%M:%S}"


class Folder:
    """The mails that arrived, one .eml file each; the file names sort by time of arrival."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = itertools.count()

    def add(self, sender: str, recipients: Sequence[str], content: bytes) -> None:
        """Keep a mail; a listing sees it once it is whole."""
        now = datetime.now(UTC)
        name = f"{now:%Y%m%dT%H%M%S.%fZ}-{next(self._count):06}"
        envelope = {"received_at": now.isoformat(), "sender": sender, "recipients": recipients}
        draft = self._path / f"{name}.part"
        draft.write_bytes(ENVELOPE + json.dumps(envelope).encode() + b"\r\n" + content)
        draft.rename(self._file(name))

    def newest(self, limit: int) -> list[Mail]:
        """The newest mails, newest first."""
        names = sorted((file.stem for file in self._path.glob("*.eml")), reverse=True)
        return [self.read(name) for name in names[:limit]]

    def has(self, name: str) -> bool:
        """Whether there is a mail of that name; one from outside must pass this first."""
        return "/" not in name and self._file(name).is_file()

    def source(self, name: str) -> bytes:
        """The file as it is kept."""
        return self._file(name).read_bytes()

    def read(self, name: str) -> Mail:
        """The mail in that file."""
        first_line, _, content = self.source(name).partition(b"\r\n")
        message = message_from_bytes(content, _class=EmailMessage, policy=SMTPUTF8)
        return Mail(
            name=name,
            **json.loads(first_line.removeprefix(ENVELOPE)),
            language=str(message["Content-Language"] or ""),
            subject=str(message["Subject"] or ""),
            text=part(message, "plain"),
            html=part(message, "html"),
        )

    def _file(self, name: str) -> Path:
        return self._path / f"{name}.eml"


def part(message: EmailMessage, kind: str) -> str:
    """The text/<kind> part of a mail; empty when there is none."""
    found = message.get_body((kind,))
    if found is None:
        return ""
    try:
        return str(found.get_content())
    except LookupError:  # a character set that Python does not know
        return str(found.get_payload())


class Handler:
    """Takes every mail for every address; aiosmtpd calls it."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self,
        server: SMTP,  # noqa: ARG002 - aiosmtpd gives it
        session: Session,  # noqa: ARG002 - as above
        envelope: Envelope,
    ) -> str:
        """Keep the mail, then accept it."""
        self._folder.add(envelope.mail_from or "", envelope.rcpt_tos, envelope.original_content or b"")
        return "250 2.0.0 Kept"


def create_page(folder: Folder) -> Flask:
    """The web page over the mails; `/messages.json` says the same to programs."""
    page = Flask(__name__, static_folder=None)
    page.config["TRUSTED_HOSTS"] = [HOST, "localhost"]  # against DNS rebinding by a site in the same browser

    @page.before_request
    def choose_nonce() -> None:
        g.nonce = secrets.token_urlsafe(16)

    @page.after_request
    def restrict(response: Response) -> Response:
        own = f"'nonce-{g.get('nonce')}'"
        response.headers.setdefault(
            "Content-Security-Policy",
            f"default-src 'none'; style-src {own}; script-src {own}; img-src data:; connect-src 'self'; "
            "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    @page.get("/")
    def index() -> str:
        mails = folder.newest(SHOWN)
        return render_template("mailbox.html", mails=mails, chosen=mails[0] if mails else None)

    @page.get("/messages/<name>")
    def message(name: str) -> str:
        return render_template("mailbox.html", mails=folder.newest(SHOWN), chosen=existing(folder, name))

    @page.get("/messages/<name>/html")
    def html_part(name: str) -> Response:
        return html_part_response(folder, name)

    @page.get("/messages/<name>/source")
    def source(name: str) -> Response:
        return Response(folder.source(existing(folder, name).name), content_type="text/plain; charset=utf-8")

    @page.get("/messages.json")
    def listing() -> Response:
        return listing_response(folder, SHOWN)

    return page


def existing(folder: Folder, name: str) -> Mail:
    """The mail of that name, or the answer 404."""
    if not folder.has(name):
        abort(404)
    return folder.read(name)


def html_part_response(folder: Folder, name: str) -> Response:
    """The HTML part for a frame; it may load nothing and run nothing."""
    return Response(existing(folder, name).html, headers={"Content-Security-Policy": PART_POLICY})


def listing_response(folder: Folder, shown: int) -> Response:
    """The newest mails as JSON; `shown` of them, unless the query asks for another number."""
    limit = request.args.get("limit", shown, type=int)
    return jsonify([asdict(mail) for mail in folder.newest(max(limit, 0))])


def serve(folder: Folder, smtp_port: int, web_port: int) -> None:
    """Take mails and show them until SIGTERM or SIGINT; SMTP listens before the page answers."""
    smtp = Controller(Handler(folder), hostname=HOST, port=smtp_port)
    smtp.start()
    try:
        make_server(HOST, web_port, create_page(folder), threaded=True).serve_forever()
    finally:
        smtp.stop()


def main() -> None:
    """Run the mailbox as the command line says."""
    parser = argparse.ArgumentParser(
        prog="dev.mailbox", description="Take every mail and show it on a web page."
    )
    parser.add_argument("folder", type=Path, help="where the mails are kept, one .eml file each")
    parser.add_argument("--smtp-port", type=int, default=1025)
    parser.add_argument("--web-port", type=int, default=8025)
    options = parser.parse_args()
    options.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve(Folder(options.folder), options.smtp_port, options.web_port)


if __name__ == "__main__":
    main()
