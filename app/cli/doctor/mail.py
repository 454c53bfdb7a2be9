"""The mail server: can it be reached, is its certificate right, does it let us in and take our sender."""

import contextlib
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import parseaddr
from typing import Final

from app.cli.doctor.findings import Area, Finding
from app.config import Settings

SMTP = Area("smtp")

EXPIRES_SOON_S: Final = 14 * 86_400

X509_EXPIRED: Final = 10
X509_NAME_MISMATCH: Final = (62, 64)
"""OpenSSL's X509_V_ERR codes."""

LOGIN_WANTED: Final = 530


class _Found(Exception):
    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.says)
        self.finding = finding


def examine(settings: Settings) -> Iterator[Finding]:
    """Holds the conversation that a sender holds, up to MAIL FROM. Sends nothing."""
    host: smtplib.SMTP | None = None
    try:
        host = _connect(settings)
        yield SMTP.ok("It answers.")
        yield from _tls(host, settings)
        yield from _login(host, settings)
        yield from _pipelining(host)
        yield from _sender(host, settings)
    except _Found as end:
        yield end.finding
    except (OSError, smtplib.SMTPException) as error:
        yield _broken(error)
    finally:
        if host is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                host.quit()
            host.close()


def _connect(settings: Settings) -> smtplib.SMTP:
    name, wait_s = socket.gethostname(), settings.mail_timeout_s
    if settings.mail_use_ssl:
        host: smtplib.SMTP = smtplib.SMTP_SSL(
            settings.mail_server, settings.mail_port, name, timeout=wait_s, context=_context(settings)
        )
    else:
        host = smtplib.SMTP(settings.mail_server, settings.mail_port, name, timeout=wait_s)
    host.ehlo_or_helo_if_needed()
    return host


def _context(settings: Settings) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=settings.mail_ca_file or None)


def _tls(host: smtplib.SMTP, settings: Settings) -> Iterator[Finding]:
    if settings.mail_use_tls:
        if not host.has_extn("starttls"):
            raise _Found(
                SMTP.problem(
                    "MAIL_USE_TLS is set, and the server does not offer STARTTLS.",
                    "Use its submission port (587), or MAIL_USE_SSL=true with port 465.",
                )
            )
        host.starttls(context=_context(settings))
        host.ehlo()
    elif not settings.mail_use_ssl:
        if host.has_extn("starttls"):
            yield SMTP.warning(
                "The server offers STARTTLS and we do not use it: numbers and passwords travel in clear.",
                "Set MAIL_USE_TLS=true.",
            )
        elif settings.mail_server not in ("localhost", "127.0.0.1", "::1"):
            yield SMTP.warning(
                "Mails travel to the server in clear.",
                "Use a server that offers TLS: MAIL_USE_TLS=true (587) or MAIL_USE_SSL=true (465).",
            )
    if isinstance(host.sock, ssl.SSLSocket):
        yield from _certificate(host.sock)


def _certificate(sock: ssl.SSLSocket) -> Iterator[Finding]:
    certificate = sock.getpeercert() or {}
    left_s = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()
    if left_s < EXPIRES_SOON_S:
        yield SMTP.warning(
            f"The certificate of the mail server ends in {left_s / 86_400:.0f} days.",
            "Have it renewed; after that no mail goes out.",
        )
    else:
        yield SMTP.ok(f"{sock.version()} with a certificate that is trusted.")


def _login(host: smtplib.SMTP, settings: Settings) -> Iterator[Finding]:
    if not settings.mail_username:
        return
    if not isinstance(host.sock, ssl.SSLSocket):
        yield SMTP.warning(
            "The password of the mail server is sent in clear.",
            "Set MAIL_USE_TLS=true, or MAIL_USE_SSL=true with port 465.",
        )
    if not host.has_extn("auth"):
        raise _Found(
            SMTP.problem(
                "MAIL_USERNAME is set, and the server offers no login here.",
                "Most servers do so only after TLS: set MAIL_USE_TLS=true. Else unset user and password.",
            )
        )
    try:
        host.login(settings.mail_username, settings.mail_password)
    except smtplib.SMTPAuthenticationError as error:
        raise _Found(
            SMTP.problem(
                f"The server refuses the login ({error.smtp_code}).",
                "Correct MAIL_USERNAME and MAIL_PASSWORD; some providers want an application password.",
            )
        ) from error
    yield SMTP.ok("It accepts the login.")


def _pipelining(host: smtplib.SMTP) -> Iterator[Finding]:
    if host.has_extn("pipelining"):
        yield SMTP.ok("It offers PIPELINING.")
    else:
        yield SMTP.note("It does not offer PIPELINING (RFC 2920): a mail takes two round trips more.")


def _sender(host: smtplib.SMTP, settings: Settings) -> Iterator[Finding]:
    code, _ = host.mail(parseaddr(settings.mail_default_sender)[1])
    if code == LOGIN_WANTED:
        yield SMTP.problem(
            "The server takes no mail without a login.", "Set MAIL_USERNAME and MAIL_PASSWORD."
        )
    elif code >= 500:
        yield SMTP.problem(
            f"The server refuses our sender ({code}).",
            "Set MAIL_DEFAULT_SENDER to an address that this server may send for.",
        )
    elif code >= 400:
        yield SMTP.warning(
            f"The server puts our sender off ({code}).", "Ask again in some minutes; then see its log."
        )
    else:
        yield SMTP.ok("It takes our sender.")


def _broken(error: Exception) -> Finding:
    match error:
        case ssl.SSLCertVerificationError(verify_code=code) if code == X509_EXPIRED:
            return SMTP.problem(
                "The certificate of the mail server has expired.", "Have it renewed on the mail server."
            )
        case ssl.SSLCertVerificationError(verify_code=code) if code in X509_NAME_MISMATCH:
            return SMTP.problem(
                "The certificate of the mail server is for another name.",
                "Set MAIL_SERVER to a name that the certificate has.",
            )
        case ssl.SSLCertVerificationError():
            return SMTP.problem(
                "The certificate of the mail server is not trusted.",
                "Set MAIL_CA_FILE to the certificate of whoever signed it (PEM).",
            )
        case ssl.SSLError():
            return SMTP.problem(
                "No TLS can be agreed upon with the mail server.",
                "MAIL_USE_SSL is for port 465; on 587 and 25 it is MAIL_USE_TLS.",
            )
        case socket.gaierror():
            return SMTP.problem(
                "The name in MAIL_SERVER is unknown.", "Correct it, or see to the DNS of this machine."
            )
        case ConnectionRefusedError():
            return SMTP.problem(
                "Nothing listens at MAIL_SERVER and MAIL_PORT.",
                "Correct them, or start the mail server; 587 and 465 are the usual ports.",
            )
        case smtplib.SMTPServerDisconnected() if "timed out" not in str(error):
            return SMTP.problem(
                "The mail server ends the conversation.",
                "If the port wants TLS at once (465), set MAIL_USE_SSL=true; else see the server's log.",
            )
        case TimeoutError() | smtplib.SMTPServerDisconnected():
            return SMTP.problem(
                "The mail server does not answer in time.",
                "Check MAIL_SERVER, MAIL_PORT and the firewall: many providers close port 25, so use 587. "
                "A port that wants TLS at once (465) needs MAIL_USE_SSL=true.",
            )
        case smtplib.SMTPResponseException():
            return SMTP.problem(
                f"The mail server does not want to talk to us ({error.smtp_code}).",
                "See its log: is this machine allowed to send?",
            )
    return SMTP.problem(
        f"The mail server cannot be used ({type(error).__name__}).",
        "See its log; check MAIL_SERVER and MAIL_PORT.",
    )
