"""`doctor` finds what is wrong with a mail server, and names the cure for each."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from app.cli.doctor import mail
from app.cli.doctor.findings import Level
from app.config import Settings
from tests.operate.doctor import SENDER, assert_found, smtp, worst
from tests.support.certificates import Certificate
from tests.support.servers import free_port
from tests.support.smtp import Behaviour, ScriptedSmtp, cut, say, silence

OK = "250 OK"


class Particular:
    """aiosmtpd's handler of a server that answers the sender, or the recipient, with a reply of its own."""

    def __init__(self, reply: str = OK, recipient: str = OK) -> None:
        self._reply = reply
        self._recipient = recipient
        self.asked_for: list[str] = []
        self.mails = 0

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.asked_for.append(address)
        return self._recipient

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.mails += 1
        return OK

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return self._reply


class Hanging:
    """aiosmtpd's handler of a server that greets, and then says nothing more."""

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        await asyncio.sleep(1)
        return responses


def only_ada(*login: Any) -> AuthResult:
    """Lets in ada with her password."""
    given = login[-1]
    return AuthResult(success=isinstance(given, LoginPassword) and given.password == b"right", handled=False)


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path)


def as_ada(settings: Settings, certificate: Certificate, password: str) -> Settings:
    """STARTTLS with a trusted certificate, and a login."""
    return replace(
        settings,
        mail_use_tls=True,
        mail_ca_file=str(certificate.path),
        mail_username="ada",
        mail_password=password,
    )


def test_a_mail_server_as_it_should_be_has_nothing_to_complain_about(certificate: Certificate) -> None:
    """STARTTLS with a trusted certificate, a login, our sender: all is well, and no mail was sent."""
    with smtp(
        tls_context=certificate.server_context(), authenticator=only_ada, auth_required=True
    ) as settings:
        found = list(mail.examine(as_ada(settings, certificate, "right")))
    assert worst(found) == []
    assert "PIPELINING" in next(finding.says for finding in found if finding.level is Level.NOTE)


def test_starttls_that_is_offered_and_unused_is_found(certificate: Certificate) -> None:
    """Numbers would travel in clear, for want of one setting."""
    with smtp(tls_context=certificate.server_context()) as settings:
        assert_found(
            mail.examine(settings), Level.WARNING, "STARTTLS and we do not use it", "MAIL_USE_TLS=true"
        )


def test_starttls_that_is_not_offered_is_found() -> None:
    """MAIL_USE_TLS against a port without it."""
    with smtp() as settings:
        found = mail.examine(replace(settings, mail_use_tls=True))
        assert_found(found, Level.PROBLEM, "does not offer STARTTLS", "587")


CERTIFICATE_FAULTS: list[tuple[dict[str, Any], bool, str, str]] = [
    ({}, False, "is not trusted", "MAIL_CA_FILE"),
    ({"lives": timedelta(days=-1)}, True, "has expired", "renewed"),
    ({"name": "mail.example.net"}, True, "for another name", "Set MAIL_SERVER"),
]


@pytest.mark.parametrize("at_once", [False, True], ids=["STARTTLS", "TLS at once"])
@pytest.mark.parametrize(
    ("made", "trusted", "says", "cure"), CERTIFICATE_FAULTS, ids=["unknown", "old", "name"]
)
def test_a_bad_certificate_is_found(
    tmp_path: Path, made: dict[str, Any], trusted: bool, says: str, cure: str, at_once: bool
) -> None:
    """Not trusted, expired, for another name: on port 587 and on port 465."""
    bad = Certificate(tmp_path, **made)
    context = bad.server_context()
    options = {"ssl_context": context} if at_once else {"tls_context": context}
    with tls_smtp(at_once, options) as settings:
        ca_file = str(bad.path) if trusted else ""
        found = list(mail.examine(replace(settings, mail_ca_file=ca_file)))
    assert_found(found, Level.PROBLEM, says, cure)


def tls_smtp(at_once: bool, options: dict[str, Any]) -> AbstractContextManager[Settings]:
    @contextmanager
    def server() -> Iterator[Settings]:
        if at_once:
            with tls_listener(options["ssl_context"]) as port:
                yield Settings(
                    mail_server="localhost",
                    mail_port=port,
                    mail_use_ssl=True,
                    mail_default_sender=SENDER,
                    mail_timeout_s=2.0,
                )
        else:
            with smtp(**options) as settings:
                yield replace(settings, mail_use_tls=True)

    return server()


@contextmanager
def tls_listener(context: ssl.SSLContext) -> Iterator[int]:
    """A port that wants TLS at once; what comes after it does not matter to those who refuse it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            try:
                connection, _ = listener.accept()
                with context.wrap_socket(connection, server_side=True):
                    return
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_a_certificate_that_ends_soon_is_found(tmp_path: Path) -> None:
    """Before it is too late."""
    soon = Certificate(tmp_path, lives=timedelta(days=3, hours=1))
    with smtp(tls_context=soon.server_context()) as settings:
        found = mail.examine(replace(settings, mail_use_tls=True, mail_ca_file=str(soon.path)))
        assert_found(found, Level.WARNING, "ends in 3 days", "renewed")


def test_a_refused_login_is_found(certificate: Certificate) -> None:
    """With the reply's code, and without the password."""
    with smtp(tls_context=certificate.server_context(), authenticator=only_ada) as settings:
        findings = list(mail.examine(as_ada(settings, certificate, "wr0ng-one")))
    assert_found(findings, Level.PROBLEM, "refuses the login (535)", "MAIL_PASSWORD")
    assert "wr0ng-one" not in str(findings)


def test_a_login_that_is_not_offered_or_not_given_is_found(certificate: Certificate) -> None:
    """Most servers offer it only after TLS, and take no mail without it."""
    with smtp(tls_context=certificate.server_context(), authenticator=only_ada) as settings:
        found = list(mail.examine(replace(settings, mail_username="ada", mail_password="right")))
        assert "offers no login here" in found[-1].says
        assert "MAIL_USE_TLS=true" in found[-1].cure
    with smtp(Particular("530 5.7.0 Authentication required")) as settings:
        assert_found(mail.examine(settings), Level.PROBLEM, "no mail without a login", "MAIL_USERNAME")


def test_a_password_that_cannot_be_sent_is_found() -> None:
    """Without a traceback, which would show it."""
    with smtp(authenticator=only_ada, auth_require_tls=False) as settings:
        found = list(mail.examine(replace(settings, mail_username="ada", mail_password="contraseña")))
    assert (found[-1].level, "outside ASCII" in found[-1].says) == (Level.PROBLEM, True)
    assert "contrase" not in str(found)


def test_a_password_in_clear_is_found() -> None:
    """The login works; it should not work like that."""
    with smtp(authenticator=only_ada, auth_require_tls=False) as settings:
        found = mail.examine(replace(settings, mail_username="ada", mail_password="right"))
        assert_found(
            found, Level.WARNING, "password of the mail server is sent in clear", "MAIL_USE_TLS=true"
        )


@pytest.mark.parametrize(
    ("reply", "level", "says", "cure"),
    [
        ("550 5.7.1 Not you", Level.PROBLEM, "refuses our sender (550)", "MAIL_DEFAULT_SENDER"),
        ("451 4.7.1 Later", Level.WARNING, "puts our sender off (451)", "Ask again"),
    ],
)
def test_a_refused_sender_is_found(reply: str, level: Level, says: str, cure: str) -> None:
    """Before the first person waits for a mail."""
    with smtp(Particular(reply)) as settings:
        assert_found(mail.examine(settings), level, says, cure)


@pytest.mark.parametrize(
    ("reply", "level", "says", "cure"),
    [
        ("550 5.7.1 Relaying denied", Level.PROBLEM, "takes no mails from us (recipient 550 5.7.1)", "login"),
        ("550 relay not permitted", Level.WARNING, "refuses a mail to our sender (recipient 550)", "login"),
        ("554 No", Level.WARNING, "refuses a mail to our sender (recipient 554)", "make the mailbox"),
    ],
)
def test_a_server_that_takes_no_mails_from_us_is_found(
    reply: str, level: Level, says: str, cure: str
) -> None:
    """It accepts the sender, and refuses every recipient. It is asked for our own, and gets no mail."""
    server = Particular(recipient=reply)
    with smtp(server) as settings:
        assert_found(mail.examine(settings), level, says, cure)
    assert (server.asked_for, server.mails) == (["no-reply@mail.example.com"], 0)


@pytest.mark.parametrize(
    ("reply", "level"),
    [(OK, Level.OK), ("550 5.1.1 No such mailbox", Level.OK), ("450 4.7.1 Greylisted", Level.NOTE)],
)
def test_a_server_that_has_no_mailbox_of_our_sender_or_puts_us_off_is_well(reply: str, level: Level) -> None:
    """`no-reply` need not be a mailbox."""
    server = Particular(recipient=reply)
    with smtp(server) as settings:
        found = list(mail.examine(settings))
    assert (worst(found), found[-1].level, server.mails) == ([], level, 0)


@pytest.mark.parametrize(
    ("stages", "level", "says"),
    [
        ({"rcpt": silence}, Level.PROBLEM, "no longer answers in time"),
        ({"rcpt": say("550 5.7.1 No"), "rset": cut}, Level.PROBLEM, "takes no mails from us"),
        ({"rcpt": say("550 5.7.1 No"), "rset": silence}, Level.PROBLEM, "takes no mails from us"),
    ],
)
def test_a_server_that_says_nothing_more_is_told_by_what_it_has_said(
    stages: dict[str, Behaviour], level: Level, says: str
) -> None:
    """It can be reached; and servers hang up on whom they refuse."""
    with closing(ScriptedSmtp()) as server:
        server.script = stages
        settings = Settings(
            mail_server="127.0.0.1", mail_port=server.port, mail_default_sender=SENDER, mail_timeout_s=0.5
        )
        assert_found(mail.examine(settings), level, says, "log")


def test_a_mail_server_that_cannot_be_reached_is_found() -> None:
    """Not there, an unknown name, TLS at a port without it, silence at once or later: each has its cure."""
    nothing = Settings(mail_server="127.0.0.1", mail_port=free_port(), mail_default_sender=SENDER)
    assert_found(mail.examine(nothing), Level.PROBLEM, "Nothing listens", "587 and 465")
    unknown = replace(nothing, mail_server="mail.invalid")
    assert_found(mail.examine(unknown), Level.PROBLEM, "name in MAIL_SERVER is unknown", "DNS")
    misspelt = replace(nothing, mail_server="mail..example.com")
    assert_found(mail.examine(misspelt), Level.PROBLEM, "name in MAIL_SERVER is unknown", "DNS")
    with smtp() as settings:
        found = mail.examine(replace(settings, mail_use_ssl=True))
        assert_found(
            found, Level.PROBLEM, "TLS handshake with the mail server fails", "MAIL_USE_SSL is for port 465"
        )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        found = mail.examine(replace(nothing, mail_port=port, mail_timeout_s=0.2))
        assert_found(found, Level.PROBLEM, "does not greet us in time", "465 needs MAIL_USE_SSL=true")
    with smtp(Hanging()) as settings:
        found = mail.examine(replace(settings, mail_timeout_s=0.2))
        assert_found(found, Level.PROBLEM, "cannot be reached in time", "firewall")
