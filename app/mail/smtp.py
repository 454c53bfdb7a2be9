"""How a mail travels: one kept SMTP connection for each sender (RFC 5321).

The conversation is our own: PIPELINING (RFC 2920) puts the envelope and DATA into one write, and the final
reply may take ten minutes (RFC 1047) while the request has long been answered. A conversation that is out of
step ends before the content: an unexpected code, or bytes that nobody asked for, mean that the next reply may
belong to another command. Imports of the app only the room.
"""

import time
from collections.abc import Callable

from app.mail.connection import BROKEN, SmtpHost, SmtpMail, connection_fault
from app.mail.messages import Mail
from app.mail.replies import (
    CLOSING,
    SEND_CONTENT,
    Blame,
    MailFault,
    Reply,
    recipient_refused,
    sender_refused,
)

__all__ = ["MAX_IDLE_S", "MAX_MAILS", "Blame", "MailFault", "SmtpMail", "SmtpSession"]

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


class _Disconnected(Exception):
    """The connection broke, a reply did not come, or the conversation is out of step.

    `content_sent`: the mail may have been accepted all the same.
    """

    def __init__(self, code: str, *, timed_out: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.timed_out = timed_out
        self.content_sent = False


class SmtpSession:
    """One sender's way to the mail server: a connection that is opened when needed, checked and renewed.

    Not to be shared between threads: every sender has its own.
    """

    def __init__(self, mail: SmtpMail) -> None:
        self._mail = mail
        self._host: SmtpHost | None = None
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
        self._end(b"QUIT\r\n")

    def close_if_idle(self) -> None:
        if self._host is not None and time.monotonic() - self._used > MAX_IDLE_S:
            self.close()

    def _end(self, farewell: bytes = b"") -> None:
        host, self._host = self._host, None
        if host is not None:
            host.wire.close(farewell)

    # The connection

    def _try(self, mail: Mail, may_go: Callable[[], bool], left: int) -> bool:
        """False when the connection broke and a new one may do better."""
        self._kept = False
        try:
            self._kept = self._keep_healthy()
            self._converse(mail, may_go)
        except _Disconnected as broken:
            self._end()
            hopeless = not self._kept and (broken.timed_out or left == 1)
            if broken.content_sent or hopeless:
                raise MailFault(Blame.SERVER, broken.code) from broken
            return False
        return True

    def _keep_healthy(self) -> bool:
        """True when the connection is a kept one, False when it was just made.

        Raises MailFault, or _Disconnected when the server broke off before it let us in."""
        now = time.monotonic()
        if now - self._opened > MAX_AGE_S or self._mails >= MAX_MAILS:
            self.close()
        if self._host is not None and now - self._used > CHECK_AFTER_IDLE_S and not self._answers(self._host):
            self._end()
        if self._host is None:
            self._open()
            return False
        return True

    def _answers(self, host: SmtpHost) -> bool:
        """Whether a connection that rested is up. One that was used just now is not asked, which costs: if
        it is dead, the mail finds out before its content is sent, and goes on a new one."""
        try:
            if not host.wire.quiet():
                return False
            self._write(b"NOOP\r\n")
            return self._reply("noop", self._mail.timeout_s * CHECK_SHARE).accepted
        except _Disconnected:
            return False

    def _open(self) -> None:
        """Connects, starts TLS, logs in. Raises MailFault for what will fail for every mail, and
        _Disconnected when the server broke off."""
        try:
            self._host = self._mail.connect().configure_host()
        except (OSError, ValueError) as error:
            fault = connection_fault(error)
            if fault.code.endswith(BROKEN):
                raise _Disconnected(fault.code) from error
            raise fault from error
        self._pipelining = self._host.has_extn("pipelining")
        self._opened = self._used = time.monotonic()
        self._mails = 0

    # The conversation

    def _converse(self, mail: Mail, may_go: Callable[[], bool]) -> None:
        """One mail transaction (RFC 5321 §3.3). Raises MailFault or _Disconnected."""
        self._stay_in_step("sender")
        envelope = (
            f"MAIL FROM:<{mail.sender}>\r\n".encode(),
            f"RCPT TO:<{mail.recipient}>\r\n".encode(),
            b"DATA\r\n",
        )
        refusal = self._pipeline(*envelope) if self._pipelining else self._step_by_step(*envelope)
        if refusal is not None:
            self._leave()
            raise refusal
        self._stay_in_step("data")
        if not may_go():
            self._end()
            raise MailFault(Blame.MOMENT, "lease lost")
        final = self._hand_over(mail.content)
        if not final.accepted:
            self._end()
            raise MailFault(Blame.MOMENT, final.told("content"))

    def _pipeline(self, sender: bytes, recipient: bytes, data: bytes) -> MailFault | None:
        """The envelope and DATA in one write. A refused envelope; None when the content may be sent."""
        self._write(sender + recipient + data)
        told, asked = self._answer("sender"), self._reply("recipient")
        ready = self._reply("data")
        if not told.refused and asked.accepted:
            return self._ready(ready)
        _expect(asked.refused, asked, "recipient")
        # RFC 2920 §3.1 lets a server accept DATA although no recipient was: then it waits for a content, and
        # an end of the connection is a clearer answer than an empty mail.
        _expect(ready.refused or ready.code == SEND_CONTENT, ready, "data")
        if ready.code == SEND_CONTENT:
            self._end()
        return sender_refused(told) if told.refused else recipient_refused(asked)

    def _step_by_step(self, sender: bytes, recipient: bytes, data: bytes) -> MailFault | None:
        """The same, each command after the reply to the one before."""
        self._write(sender)
        told = self._answer("sender")
        if told.refused:
            return sender_refused(told)
        self._write(recipient)
        asked = self._answer("recipient")
        if asked.refused:
            return recipient_refused(asked)
        self._write(data)
        return self._ready(self._reply("data"))

    def _ready(self, reply: Reply) -> MailFault | None:
        """None when the server waits for the content. Where it refuses DATA, the connection ends."""
        _expect(reply.refused or reply.code == SEND_CONTENT, reply, "data")
        if reply.code == SEND_CONTENT:
            return None
        self._end()
        return MailFault(Blame.MOMENT, reply.told("data"))

    def _hand_over(self, content: bytes) -> Reply:
        """The final reply to the mail."""
        try:
            self._write(content + b".\r\n")
            return self._answer("content", FINAL_REPLY_TIMEOUT_S)
        except _Disconnected as broken:
            broken.content_sent = True
            raise

    def _leave(self) -> None:
        """Ends a transaction that came to nothing, so that the connection can carry the next one."""
        if self._host is None:
            return
        try:
            self._write(b"RSET\r\n")
            if self._reply("reset").accepted:
                return
        except _Disconnected:
            pass
        self._end()

    def _stay_in_step(self, stage: str) -> None:
        if not self._connection.wire.quiet():
            raise _Disconnected(f"{stage} {BROKEN}")

    @property
    def _connection(self) -> SmtpHost:
        if self._host is None:
            raise _Disconnected("closed")
        return self._host

    def _write(self, octets: bytes) -> None:
        try:
            self._connection.wire.write(octets, self._mail.timeout_s)
        except OSError as error:
            raise _Disconnected("write broken") from error

    def _answer(self, stage: str, timeout_s: float = 0.0) -> Reply:
        """A reply that accepts or refuses."""
        reply = self._reply(stage, timeout_s)
        _expect(reply.accepted or reply.refused, reply, stage)
        return reply

    def _reply(self, stage: str, timeout_s: float = 0.0) -> Reply:
        """Reads one reply, in MAIL_TIMEOUT unless told otherwise. Raises _Disconnected when there is none,
        or 421."""
        try:
            reply = self._connection.wire.reply(timeout_s or self._mail.timeout_s)
        except TimeoutError as error:
            raise _Disconnected(f"{stage} timeout", timed_out=True) from error
        except OSError as error:
            raise _Disconnected(f"{stage} {BROKEN}") from error
        _expect(reply.code != CLOSING, reply, stage)
        return reply


def _expect(in_step: bool, reply: Reply, stage: str) -> None:
    if not in_step:
        raise _Disconnected(reply.told(stage))
