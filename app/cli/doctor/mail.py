"""The mail server: can it be reached, is its certificate right, does it let us in and take our sender."""

import smtplib
import ssl
import time
from collections.abc import Iterator
from email.utils import parseaddr
from typing import Final

from flask import Flask

from app.cli.doctor.findings import Area, Finding, Level
from app.config import Settings
from app.mail.connection import SmtpHost, SmtpMail, connection_fault, flask_settings
from app.mail.replies import LOGIN_WANTED, Blame, Reply, recipient_refused
from app.sockets.timed import distrust

SMTP = Area("smtp")

EXPIRES_SOON_S: Final = 14 * 86_400


def examine(settings: Settings) -> Iterator[Finding]:
    """Talks to the server as the service does, up to RCPT or the first problem. Sends no mail."""
    try:
        host = SmtpHost(way_to(settings))
    except (OSError, ValueError) as error:
        yield _broken(error)
        return
    yield SMTP.ok("It answers.")
    try:
        for step in (_tls, _login, _pipelining, _sender):
            for finding in step(host, settings):
                yield finding
                if finding.level is Level.PROBLEM:
                    return  # what follows in the step is not run
    except TimeoutError:
        yield SMTP.problem(
            "The mail server no longer answers in time.",
            "It hangs, or waits for others, as for the DNS: see its log.",
        )
    except (OSError, ValueError) as error:
        yield _broken(error)
    finally:
        host.wire.end(b"QUIT\r\n")


def way_to(settings: Settings) -> SmtpMail:
    """How the service itself connects."""
    app = Flask("app", static_folder=None)
    app.config.from_mapping(flask_settings(settings))
    return SmtpMail(app, settings.mail_timeout_s, settings.mail_ca_file)


def _tls(host: SmtpHost, settings: Settings) -> Iterator[Finding]:
    offered = host.has_extn("starttls")
    if settings.mail_use_tls:
        if not offered:
            yield SMTP.problem(
                "MAIL_USE_TLS is set, and the server does not offer STARTTLS.",
                "Use its submission port (587), or MAIL_USE_SSL=true with port 465.",
            )
        host.encrypt()
    elif not settings.mail_use_ssl and offered:
        yield SMTP.warning(
            "The server offers STARTTLS and we do not use it: numbers and passwords travel in clear.",
            "Set MAIL_USE_TLS=true.",
        )
    elif not settings.mail_use_ssl and settings.mail_server not in ("localhost", "127.0.0.1", "::1"):
        yield SMTP.warning(
            "Mails travel to the server in clear.",
            "Use a server that offers TLS: MAIL_USE_TLS=true (587) or MAIL_USE_SSL=true (465).",
        )
    if isinstance(host.sock, ssl.SSLSocket):
        yield _certificate(host.sock)


def _certificate(sock: ssl.SSLSocket) -> Finding:
    certificate = sock.getpeercert() or {}
    left_s = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()
    if left_s < EXPIRES_SOON_S:
        return SMTP.warning(
            f"The certificate of the mail server ends in {left_s / 86_400:.0f} days.",
            "Have it renewed: once it has ended, no mail goes out.",
        )
    return SMTP.ok(f"{sock.version()} with a certificate that is trusted.")


def _login(host: SmtpHost, settings: Settings) -> Iterator[Finding]:
    if not settings.mail_username:
        return
    if not isinstance(host.sock, ssl.SSLSocket):
        yield SMTP.warning(
            "The password of the mail server is sent in clear.",
            "Set MAIL_USE_TLS=true, or MAIL_USE_SSL=true with port 465.",
        )
    if not host.has_extn("auth"):
        yield SMTP.problem(
            "MAIL_USERNAME is set, and the server offers no login here.",
            "Most servers do so only after TLS: set MAIL_USE_TLS=true. Else unset user and password.",
        )
    if not f"{settings.mail_username}{settings.mail_password}".isascii():
        yield SMTP.problem(
            "MAIL_USERNAME or MAIL_PASSWORD holds a character outside ASCII, so we cannot log in.",
            "Choose a password of ASCII characters.",
        )
    try:
        host.log_in()
    except smtplib.SMTPAuthenticationError as error:
        yield SMTP.problem(
            f"The server refuses the login ({error.smtp_code}).",
            "Correct MAIL_USERNAME and MAIL_PASSWORD; some providers want an application password.",
        )
    yield SMTP.ok("It accepts the login.")


def _pipelining(host: SmtpHost, _: Settings) -> Iterator[Finding]:
    if host.has_extn("pipelining"):
        yield SMTP.ok("It offers PIPELINING.")
    else:
        yield SMTP.note("It does not offer PIPELINING (RFC 2920): each mail takes two more round trips.")


def _sender(host: SmtpHost, settings: Settings) -> Iterator[Finding]:
    host.wire.begin(settings.mail_timeout_s)
    code, _ = host.mail(envelope_sender(settings))
    setting = "BOUNCE_ADDRESS" if settings.bounce_address else "MAIL_DEFAULT_SENDER"
    if code == LOGIN_WANTED:
        yield SMTP.problem(
            "The server takes no mail without a login.", "Set MAIL_USERNAME and MAIL_PASSWORD."
        )
    elif code >= 500:
        yield SMTP.problem(
            f"The server refuses our sender ({code}).",
            f"Set {setting} to an address that this server may send for.",
        )
    elif code >= 400:
        yield SMTP.warning(
            f"The server puts our sender off ({code}).", "Ask again in some minutes; then see its log."
        )
    else:
        yield SMTP.ok("It accepts our sender.")
        yield _recipient(host, parseaddr(settings.mail_default_sender)[1])


def _recipient(host: SmtpHost, address: str) -> Finding:
    """Asks for a mail to our own sender: a server that does not relay for us often refuses only RCPT. QUIT
    takes it back."""
    answer = reply(*host.rcpt(address))
    if answer.accepted:
        return SMTP.ok("It takes a mail to our sender.")
    refusal = recipient_refused(answer)
    if refusal.blame is Blame.OPERATOR:
        return SMTP.problem(
            f"The server takes no mails from us ({refusal.code}).",
            "It must let this machine, or our login, send: see its log, and MAIL_USERNAME.",
        )
    if refusal.blame is Blame.ADDRESS and answer.enhanced:
        return SMTP.ok("It knows no mailbox of our sender, and takes mails from it.")
    if answer.code < 500:
        return SMTP.note(f"It puts a mail to our sender off ({refusal.code}).", "Ask again in some minutes.")
    return SMTP.warning(
        f"It refuses a mail to our sender ({refusal.code}).",
        "If it refuses every address, it must let this machine, or our login, send. Else make the mailbox: "
        "some receivers refuse mails of a sender that does not exist.",
    )


def reply(code: int, text: bytes) -> Reply:
    """What smtplib gives, as a reply of the mail room."""
    return Reply(code, text.split(b"\n"))


def envelope_sender(settings: Settings) -> str:
    """An envelope sender as mails have it: where BOUNCE_ADDRESS is set, with a tag."""
    name, at, host = settings.bounce_address.rpartition("@")
    return f"{name}+doctor@{host}" if at else parseaddr(settings.mail_default_sender)[1]


NOT_CONNECTED: Final = {
    "connect without TLS": (
        "The TLS handshake with the mail server fails.",
        "MAIL_USE_SSL is for port 465; on 587 and 25 it is MAIL_USE_TLS.",
    ),
    "connect to unknown host": (
        "The name in MAIL_SERVER is unknown.",
        "Correct it, or check the DNS of this machine.",
    ),
    "connect refused": (
        "Nothing listens at MAIL_SERVER and MAIL_PORT.",
        "Correct them, or start the mail server; 587 and 465 are the usual ports.",
    ),
    "connect broken": (
        "The mail server closes the connection, or does not speak SMTP as it should.",
        "Check MAIL_SERVER and MAIL_PORT (465 needs MAIL_USE_SSL=true), then the server's log.",
    ),
    "connect timeout": (
        "The mail server cannot be reached in time.",
        "Check port and firewall: many providers block 25, so use 587. If `nc` connects, the server hangs.",
    ),
    "greeting timeout": (
        "The mail server takes the connection, and does not greet us in time.",
        "465 needs MAIL_USE_SSL=true. Else the server hangs or is full, or waits for the DNS: see its log.",
    ),
    "login not offered": (
        "The server offers no way to log in that we know (CRAM-MD5, PLAIN, LOGIN).",
        "Use another port or server; else ask its operator for one of these.",
    ),
    "certificate expired": (
        "The certificate of the mail server has expired.",
        "Have it renewed on the mail server.",
    ),
    "certificate for another name": (
        "The certificate of the mail server is for another name.",
        "Set MAIL_SERVER to a name that the certificate has.",
    ),
    "certificate refused": (
        "The certificate of the mail server is not trusted.",
        "Set MAIL_CA_FILE to the certificate of whoever signed it (PEM).",
    ),
}
"""By the code of `connection_fault`, or of `distrust`: what is wrong, and the cure."""


def _broken(error: Exception) -> Finding:
    """The fault that the service would report, with the cure."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = distrust(error)
    else:
        code = connection_fault(error).code
    other = (f"The mail server cannot be used ({code}).", "See its log: may this machine send?")
    return SMTP.problem(*NOT_CONNECTED.get(code, other))
