"""Sessions with odd mail servers, without the rest of the service."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flask

from app.mail.messages import Mail
from app.mail.smtp import MailFault, SmtpMail, SmtpSession
from app.sockets.names import Names
from tests.support.faults.smtp import Over, Script, Talk, ordinary

TIMEOUT_S = 0.5

HANGS_S = 15.0
"""A wait that is longer than this has no deadline."""

MEMORY = 4_000_000
"""Bytes that one session may need at its worst; a reply without end takes a gigabyte in ten seconds."""


def mail(number: int = 0) -> Mail:
    return Mail(
        "no-reply@example.com",
        f"person{number}@example.com",
        f"Subject: x\r\nMessage-ID: <{number}@example.com>\r\n\r\nNumber {number}\r\n".encode(),
    )


@contextmanager
def session(
    port: int, timeout_s: float = TIMEOUT_S, names: Names | None = None, **settings: Any
) -> Iterator[SmtpSession]:
    app = flask.Flask("mail")
    app.config.update(MAIL_SERVER="127.0.0.1", MAIL_PORT=port, **settings)
    one = SmtpSession(SmtpMail(app, timeout_s, names=names))
    yield one
    one.close()


def send(one: SmtpSession, what: Mail | None = None) -> str:
    """The code of the fault, or `sent`."""
    try:
        one.send(what or mail())
    except MailFault as fault:
        return fault.code
    return "sent"


def after(stage: str, act: Callable[[Talk], None]) -> Script:
    """Ordinary up to the reply to a stage (`connect`, `ehlo`, `mail` …); in its place, the act."""

    def script(talk: Talk) -> None:
        def instead(at: str, usual: str) -> str:
            if at == stage:
                act(talk)
                raise Over
            return usual

        talk.instead = instead
        ordinary(talk)

    return script


LOGIN: dict[str, Any] = {"MAIL_USERNAME": "ada", "MAIL_PASSWORD": "secret"}
