"""How a connection to the mail server is opened: Flask-Mail's way, with deadlines, bounds and a certificate
that is checked.

smtplib speaks EHLO and logs in; `SmtpHost` makes it connect, read and write over a `Wire`. Imports of the app
only `config`, `errors`, `sockets` and the room.
"""

import smtplib
import socket
import ssl
import time
from functools import cached_property

import flask_mail
from flask import Flask

from app.config import Settings
from app.errors import SettingsError
from app.mail.replies import Blame, MailFault
from app.mail.wire import Wire
from app.sockets.names import Names
from app.sockets.timed import connected

BROKEN = "broken"


def flask_settings(settings: Settings) -> dict[str, object]:
    """What Flask-Mail reads of an app's configuration."""
    return {
        "MAIL_SERVER": settings.mail_server,
        "MAIL_PORT": settings.mail_port,
        "MAIL_USE_TLS": settings.mail_use_tls,
        "MAIL_USE_SSL": settings.mail_use_ssl,
        "MAIL_USERNAME": settings.mail_username or None,
        "MAIL_PASSWORD": settings.mail_password or None,
        "MAIL_DEFAULT_SENDER": settings.mail_default_sender,
    }


class SmtpMail(flask_mail.Mail):
    """Flask-Mail, connecting with a deadline and a certificate that is checked."""

    def __init__(self, app: Flask, timeout_s: float, ca_file: str = "", names: Names | None = None) -> None:
        """Raises SettingsError when `ca_file` holds no certificates."""
        self.timeout_s = timeout_s
        self.names = names or Names()
        self._ca_file = ca_file
        super().__init__(app)
        if ca_file or self.use_tls or self.use_ssl:
            self.tls  # noqa: B018 made at the start: a wrong file is told then, and no mail waits for it

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """The authorities to trust. Read when first needed: the system's take a megabyte."""
        try:
            return ssl.create_default_context(cafile=self._ca_file or None)
        except (ssl.SSLError, OSError) as error:
            raise SettingsError("MAIL_CA_FILE: Must hold certificates in PEM.") from error

    def connect(self) -> "SmtpConnection":
        return SmtpConnection(self)


class SmtpConnection(flask_mail.Connection):
    """Flask-Mail's connection, over our own host."""

    mail: SmtpMail

    def configure_host(self) -> "SmtpHost":
        """A connection that takes mails. Raises OSError (SMTPException is one) or ValueError."""
        host = SmtpHost(self.mail)
        try:
            if self.mail.use_tls:
                host.encrypt()
            if self.mail.username:
                host.log_in()
        except BaseException:
            host.close()
            raise
        return host


class SmtpHost(smtplib.SMTP):
    """smtplib's client over a `Wire`: connected, greeted and, with MAIL_USE_SSL, under TLS.

    Connecting, encrypting and logging in are one step of the wire: MAIL_TIMEOUT is for all of it together.
    They raise OSError, or ValueError for a challenge that is no base64.
    """

    wire: Wire

    def __init__(self, mail: SmtpMail) -> None:
        self._mail = mail
        super().__init__(mail.server, mail.port, socket.gethostname(), timeout=mail.timeout_s)
        try:
            self.ehlo_or_helo_if_needed()
        except BaseException:
            self.close()
            raise

    def connect(
        self,
        host: str = "",
        port: int = 0,
        source_address: object = None,  # noqa: ARG002 as smtplib has it
    ) -> tuple[int, bytes]:
        deadline = time.monotonic() + self._mail.timeout_s
        addresses = self._mail.names.addresses(host, port, self._mail.timeout_s)
        self.wire = Wire(connected(addresses, deadline), deadline)
        try:
            if self._mail.use_ssl:
                self.wire.encrypt(self._mail.tls, host)
            self.sock = self.wire.sock
            return self._greeting()
        except BaseException:
            self.close()
            raise

    def _greeting(self) -> tuple[int, bytes]:
        try:
            return self.getreply()
        except TimeoutError as error:
            raise NotGreeted("connected, and no greeting in time") from error

    def encrypt(self) -> None:
        """STARTTLS. Forgets what the server said of itself before (RFC 3207 §4.2)."""
        if not self.has_extn("starttls"):
            raise smtplib.SMTPNotSupportedError("STARTTLS is not offered")
        code, text = self.docmd("STARTTLS")
        if code != 220:
            raise smtplib.SMTPResponseException(code, text)
        self.wire.encrypt(self._mail.tls, self._mail.server)
        self.sock = self.wire.sock
        self.helo_resp = self.ehlo_resp = None
        self.esmtp_features = {}
        self.does_esmtp = False
        self.ehlo_or_helo_if_needed()

    def log_in(self) -> None:
        """Logs in as MAIL_USERNAME."""
        try:
            self.login(self._mail.username or "", self._mail.password or "")
        except UnicodeEncodeError:  # it holds the password, so it must not be the cause
            raise smtplib.SMTPNotSupportedError("AUTH takes ASCII only") from None

    def send(self, s: object) -> None:
        """Writes a command."""
        self.wire.write(s if isinstance(s, bytes) else str(s).encode("ascii"))

    def getreply(self) -> tuple[int, bytes]:
        """The code and the text of one reply."""
        reply = self.wire.reply()
        return reply.code, b"\n".join(reply.lines)

    def close(self) -> None:
        self.wire.end()


class NotGreeted(TimeoutError):
    """The server accepted the connection, and its greeting did not come, or not whole, in time."""


def connection_fault(error: Exception) -> MailFault:
    """Why there is no connection, and whose fault that is."""
    match error:
        case ssl.SSLCertVerificationError():
            blame, code = Blame.OPERATOR, "certificate refused"
        case smtplib.SMTPAuthenticationError():
            blame, code = _blame(error.smtp_code), f"login {error.smtp_code}"
        case smtplib.SMTPNotSupportedError():
            missing = "login" if "AUTH" in str(error) else "starttls"
            blame, code = Blame.OPERATOR, f"{missing} not offered"
        case smtplib.SMTPResponseException():
            blame, code = _blame(error.smtp_code), f"connect {error.smtp_code}"
        case _ if type(error) is smtplib.SMTPException:  # only ways to log in that we do not know
            blame, code = Blame.OPERATOR, "login not offered"
        case NotGreeted():
            blame, code = Blame.SERVER, "greeting timeout"
        case _:
            told = next((word for kind, word in _TOLD.items() if isinstance(error, kind)), BROKEN)
            blame, code = Blame.SERVER, f"connect {told}"
    return MailFault(blame, code, connected=False)


_TOLD: dict[type[Exception], str] = {
    TimeoutError: "timeout",
    ConnectionRefusedError: "refused",
    socket.gaierror: "to unknown host",
    ssl.SSLError: "without TLS",
}


def _blame(code: int) -> Blame:
    return Blame.OPERATOR if code >= 500 else Blame.SERVER
