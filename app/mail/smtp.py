"""How a mail travels: one kept SMTP connection for each sender (RFC 5321), and what its refusals mean.

Flask-Mail opens the connection; it knows neither a time-out nor certificate checks, so `SmtpConnection`
gives it both. The conversation is our own: PIPELINING (RFC 2920) puts the envelope and DATA into one
write, and the final reply may take ten minutes (RFC 1047) while the request has long been answered.
"""

import contextlib
import re
import select
import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import flask_mail
from flask import Flask

from app.errors import SettingsError
from app.mail.messages import Mail

FINAL_REPLY_TIMEOUT_S = 600.0
"""RFC 1047: a client that gives up earlier gets the mail delivered twice."""

CHECK_AFTER_IDLE_S = 2.0
"""A connection that rested longer is asked with NOOP before it is trusted with a mail."""

CHECK_SHARE = 0.25
"""Of MAIL_TIMEOUT, for the answer to NOOP: a connection that a firewall forgot must not cost a request its
whole wait."""

MAX_IDLE_S = 60.0
"""After this a resting connection is closed: servers do the same, less politely, after some minutes."""

MAX_AGE_S = 300.0
MAX_MAILS = 100
"""After these a connection is made anew, so that load balancers and changed addresses come to bear."""

NEW_CONNECTIONS = 2
"""How many may break under one mail before it is put off."""

BROKEN = "broken"

MAX_LINE = 8192
MAX_LINES = 100
"""A reply that is longer is no reply."""

REFUSED_FOR_GOOD = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})
"""RFC 3463/7505 codes that blame the recipient's address. 5.1.7 and 5.1.8 blame the sender's."""

REFUSED_FOR_GOOD_BARE = frozenset({550, 551, 553})

OPERATORS_FAULT = re.compile(r"5\.7\.\d+|5\.1\.[78]")
"""Answers to RCPT that blame us: relaying denied, login or encryption required, sender or host refused."""

CLOSING = 421
"""RFC 5321 §3.8: at any time; the server ends the connection."""

_ENHANCED = re.compile(rb"([245]\.\d{1,3}\.\d{1,3})(?![.\w])")
"""At the start of a reply's text (RFC 2034); servers put a space after it, or a colon, or nothing."""


class Blame(StrEnum):
    """Whose fault it is that a mail did not go out, which decides what happens next."""

    ADDRESS = "address"  # refused for good
    SERVER = "server"  # cannot be reached or breaks off: the breaker counts it
    OPERATOR = "operator"  # login, certificate, sender or relaying refused: somebody must act
    MOMENT = "moment"  # this mail, now: try again later


class MailFault(Exception):
    """A mail that was not accepted.

    `code` tells the stage and the reply (`recipient 450 4.2.1`), never the server's text, which may quote
    the address. `connected`: False when no usable connection could be made at all.
    """

    def __init__(self, blame: Blame, code: str, *, connected: bool = True) -> None:
        super().__init__(code)
        self.blame = blame
        self.code = code
        self.connected = connected

    @property
    def crowded(self) -> bool:
        """421 instead of a greeting: too many connections, unless the server is shutting down."""
        return not self.connected and self.code == f"connect {CLOSING}"


class _Disconnected(Exception):
    """The connection broke, or a reply did not come or made no sense.

    `content_sent`: the mail may have been accepted all the same.
    """

    def __init__(self, code: str, *, timed_out: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.timed_out = timed_out
        self.content_sent = False


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply: `code`, and the enhanced status code where there is one (RFC 2034)."""

    code: int
    enhanced: str

    @property
    def accepted(self) -> bool:
        return 200 <= self.code < 400

    def told(self, stage: str) -> str:
        return f"{stage} {self.code} {self.enhanced}".rstrip()


class SmtpMail(flask_mail.Mail):
    """Flask-Mail, connecting with a time-out for every step and a certificate that is checked."""

    def __init__(self, app: Flask, timeout_s: float, ca_file: str = "") -> None:
        """Raises SettingsError when `ca_file` holds no certificates."""
        self.timeout_s = timeout_s
        try:
            self.tls = ssl.create_default_context(cafile=ca_file or None)
        except (ssl.SSLError, OSError) as error:
            raise SettingsError("MAIL_CA_FILE: Must hold certificates in PEM.") from error
        super().__init__(app)

    def connect(self) -> "SmtpConnection":
        return SmtpConnection(self)


class SmtpConnection(flask_mail.Connection):
    """Flask-Mail's connection to the host, with what Flask-Mail leaves out."""

    mail: SmtpMail

    def configure_host(self) -> smtplib.SMTP:
        mail, name = self.mail, socket.gethostname()
        host: smtplib.SMTP
        if mail.use_ssl:
            host = smtplib.SMTP_SSL(mail.server, mail.port, name, timeout=mail.timeout_s, context=mail.tls)
        else:
            host = smtplib.SMTP(mail.server, mail.port, name, timeout=mail.timeout_s)
        try:
            if mail.use_tls:
                host.starttls(context=mail.tls)
            host.ehlo_or_helo_if_needed()
            if mail.username:
                host.login(mail.username, mail.password)
        except BaseException:
            host.close()
            raise
        return host


class SmtpSession:
    """One sender's way to the mail server: a connection that is opened when needed, checked and renewed.

    Not to be shared between threads: every sender has its own.
    """

    def __init__(self, mail: SmtpMail) -> None:
        self._mail = mail
        self._host: smtplib.SMTP | None = None
        self._opened = self._used = 0.0
        self._mails = 0
        self._kept = False

    def send(self, mail: Mail, may_go: Callable[[], bool] = lambda: True) -> None:
        """Returns when the server has accepted the mail (250 after DATA). Raises MailFault.

        `may_go` is asked last, right before the content: if false, the mail is not sent. A connection that
        breaks before the content was sent is replaced, a new one once: nothing was said yet.
        """
        left = NEW_CONNECTIONS
        while not self._try(mail, may_go, left):
            left -= not self._kept
        self._used = time.monotonic()
        self._mails += 1

    def _try(self, mail: Mail, may_go: Callable[[], bool], left: int) -> bool:
        """False when the connection broke and a new one may do better."""
        self._kept = False
        try:
            self._kept = self._keep_healthy()
            self._converse(mail, may_go)
        except _Disconnected as broken:
            self.close()
            hopeless = not self._kept and (broken.timed_out or left == 1)
            if broken.content_sent or hopeless:
                raise MailFault(Blame.SERVER, broken.code) from broken
            return False
        return True

    @property
    def connected(self) -> bool:
        return self._host is not None

    def probe(self) -> None:
        """Opens a connection, with all that belongs to it. Raises MailFault."""
        try:
            self._keep_healthy()
        except _Disconnected as broken:
            raise MailFault(Blame.SERVER, broken.code, connected=False) from broken

    def close(self) -> None:
        """Lets the connection go; says QUIT without waiting for the answer."""
        host, self._host = self._host, None
        if host is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                host.putcmd("quit")
            host.close()

    def close_if_idle(self) -> None:
        if self._host is not None and time.monotonic() - self._used > MAX_IDLE_S:
            self.close()

    def _keep_healthy(self) -> bool:
        """True when the connection is a kept one, False when it was just made.

        Raises MailFault, or _Disconnected when the server broke off before it let us in."""
        now = time.monotonic()
        if self._host is not None and (now - self._opened > MAX_AGE_S or self._mails >= MAX_MAILS):
            self.close()
        if self._host is not None and not self._alive(now):
            self.close()
        if self._host is None:
            self._open()
            return False
        return True

    def _alive(self, now: float) -> bool:
        """A connection that rested is alive when the server has not ended it and answers NOOP.

        One that was used just now is not looked at, which costs: if it is dead, the mail finds out before
        its content is sent, and goes on a new one.
        """
        if now - self._used <= CHECK_AFTER_IDLE_S:
            return True
        if self._readable():
            return False
        try:
            self._socket.settimeout(self._mail.timeout_s * CHECK_SHARE)
            alive = self._ask(b"NOOP\r\n", "noop").accepted
            self._socket.settimeout(self._mail.timeout_s)
        except (_Disconnected, OSError):
            return False
        return alive

    def _readable(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def _open(self) -> None:
        """Connects, starts TLS, logs in. Raises MailFault for what will fail for every mail, and
        _Disconnected when the server broke off."""
        try:
            self._host = self._mail.connect().configure_host()
        except ssl.SSLCertVerificationError as error:
            raise MailFault(Blame.OPERATOR, "certificate refused", connected=False) from error
        except smtplib.SMTPAuthenticationError as error:
            blame = Blame.OPERATOR if error.smtp_code >= 500 else Blame.SERVER
            raise MailFault(blame, f"login {error.smtp_code}", connected=False) from error
        except smtplib.SMTPNotSupportedError as error:
            missing = "login" if "AUTH" in str(error) else "starttls"
            raise MailFault(Blame.OPERATOR, f"{missing} not offered", connected=False) from error
        except smtplib.SMTPResponseException as error:
            blame = Blame.OPERATOR if error.smtp_code >= 500 else Blame.SERVER
            raise MailFault(blame, f"connect {error.smtp_code}", connected=False) from error
        except (OSError, smtplib.SMTPException, ValueError) as error:
            if type(error) is smtplib.SMTPException:  # it offers only ways to log in that we do not know
                raise MailFault(Blame.OPERATOR, "login not offered", connected=False) from error
            told = _told(error)
            if told == BROKEN:
                raise _Disconnected(f"connect {told}") from error
            raise MailFault(Blame.SERVER, f"connect {told}", connected=False) from error
        self._pipelining = self._host.has_extn("pipelining")
        self._opened = self._used = time.monotonic()
        self._mails = 0

    def _converse(self, mail: Mail, may_go: Callable[[], bool]) -> None:
        """One mail transaction (RFC 5321 §3.3). Raises MailFault or _Disconnected."""
        commands = [
            f"MAIL FROM:<{mail.sender}>\r\n".encode(),
            f"RCPT TO:<{mail.recipient}>\r\n".encode(),
            b"DATA\r\n",
        ]
        if self._pipelining:
            self._write(b"".join(commands))
            sender, recipient, data = (self._reply(stage) for stage in ("sender", "recipient", "data"))
        else:
            sender = self._ask(commands[0], "sender")
            recipient = self._ask(commands[1], "recipient") if sender.accepted else sender
            data = self._ask(commands[2], "data") if recipient.accepted else recipient
        fault = _envelope_fault(sender, recipient, data)
        if fault is not None:
            self._leave(data)
            raise fault
        if not may_go():
            self.close()
            raise MailFault(Blame.MOMENT, "lease lost")
        final = self._hand_over(mail.content)
        if not final.accepted:
            raise MailFault(Blame.MOMENT, final.told("content"))

    def _hand_over(self, content: bytes) -> Reply:
        try:
            self._write(content + b".\r\n")
            self._socket.settimeout(FINAL_REPLY_TIMEOUT_S)
            reply = self._reply("content")
        except _Disconnected as broken:
            broken.content_sent = True
            raise
        self._socket.settimeout(self._mail.timeout_s)
        return reply

    def _leave(self, data: Reply) -> None:
        """Ends a transaction that came to nothing, so that the connection can carry the next one."""
        try:
            if data.code == 354:  # RFC 2920 §3.1: DATA can be accepted although no recipient was
                self._ask(b".\r\n", "content")
            self._ask(b"RSET\r\n", "reset")
        except _Disconnected:
            self.close()

    def _ask(self, command: bytes, stage: str) -> Reply:
        self._write(command)
        return self._reply(stage)

    @property
    def _socket(self) -> socket.socket:
        if self._host is None or self._host.sock is None:
            raise _Disconnected("closed")
        return self._host.sock

    def _write(self, octets: bytes) -> None:
        try:
            # gevent's sendall asks for the socket's buffer first; one send nearly always takes it all.
            sent = self._socket.send(octets)
            if sent < len(octets):
                self._socket.sendall(octets[sent:])
        except OSError as error:
            raise _Disconnected("write broken") from error

    def _reply(self, stage: str) -> Reply:
        """Reads one reply. Raises _Disconnected when there is none, or 421 (smtplib's own reader would
        give up the connection when a reply is late)."""
        file = self._host.file if self._host is not None else None
        if file is None:
            raise _Disconnected("closed")
        enhanced = ""
        for _ in range(MAX_LINES):
            try:
                line = file.readline(MAX_LINE)
            except TimeoutError as error:
                raise _Disconnected(f"{stage} timeout", timed_out=True) from error
            except OSError as error:
                raise _Disconnected(f"{stage} broken") from error
            if not line.endswith(b"\n") or not line[:3].isdigit():
                raise _Disconnected(f"{stage} broken")
            found = _ENHANCED.match(line, 4)
            enhanced = enhanced or (found[1].decode() if found else "")
            if line[3:4] != b"-":
                reply = Reply(int(line[:3]), enhanced)
                if reply.code == CLOSING:
                    raise _Disconnected(reply.told(stage))
                return reply
        raise _Disconnected(f"{stage} broken")


def _told(error: Exception) -> str:
    """Why there is no connection, in a word."""
    if isinstance(error, smtplib.SMTPServerDisconnected) and isinstance(error.__context__, OSError):
        error = error.__context__  # smtplib hides a time-out in it
    kinds: dict[type[Exception], str] = {
        TimeoutError: "timeout",
        ConnectionRefusedError: "refused",
        socket.gaierror: "to unknown host",
        ssl.SSLError: "without TLS",
    }
    return next((word for kind, word in kinds.items() if isinstance(error, kind)), BROKEN)


def _envelope_fault(sender: Reply, recipient: Reply, data: Reply) -> MailFault | None:
    """What a refused envelope means; None when the content may be sent."""
    if not sender.accepted:
        blame = Blame.OPERATOR if sender.code >= 500 else Blame.MOMENT
        return MailFault(blame, sender.told("sender"))
    if not recipient.accepted:
        return MailFault(_blame_of_recipient(recipient), recipient.told("recipient"))
    if data.code != 354:
        return MailFault(Blame.MOMENT, data.told("data"))
    return None


def _blame_of_recipient(reply: Reply) -> Blame:
    if reply.enhanced in REFUSED_FOR_GOOD and reply.code >= 500:
        return Blame.ADDRESS
    if not reply.enhanced and reply.code in REFUSED_FOR_GOOD_BARE:
        return Blame.ADDRESS
    if reply.code == 530 or OPERATORS_FAULT.fullmatch(reply.enhanced):
        return Blame.OPERATOR
    return Blame.MOMENT
