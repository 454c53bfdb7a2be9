"""How a mail travels: what is said over a connection (RFC 5321), and each sender's kept connection, which is
opened when needed, checked and renewed.

PIPELINING (RFC 2920) puts the envelope and DATA into one write. The final reply may take ten minutes (RFC
1047), long after the request was answered. A conversation that is out of step ends before the content: after
an unexpected code, or bytes that came unasked, the next reply may belong to another command. Imports of the
app only the room.
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
"""RFC 1047: if a client gives up earlier, the mail is delivered twice."""

CHECK_SHARE = 0.25
"""Of MAIL_TIMEOUT, for the replies to NOOP and RSET: a dead connection must not cost a request its whole
wait, nor make it miss that its recipient was refused."""

CHECK_AFTER_IDLE_S = 2.0
"""A connection that rested longer is checked with NOOP before it gets a mail. One that was just used is not:
if it is dead, that shows before the content, and the mail goes over a new one."""

MAX_IDLE_S = 60.0
"""After this a resting connection is closed with QUIT: servers drop it after some minutes."""

MAX_AGE_S = 300.0
MAX_MAILS = 100
"""After these a connection is made anew, so that load balancers and changed addresses take effect."""

NEW_CONNECTIONS = 2
"""How many may break while they carry one mail, before it is put off."""


class Broken(Exception):
    """The connection broke, a reply did not come, or the conversation is out of step.

    `content_sent`: the mail may have been accepted all the same.
    """

    def __init__(self, code: str, *, timed_out: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.timed_out = timed_out
        self.content_sent = False


class Conversation:
    """One connection that takes mails, until it is no longer `open`."""

    def __init__(self, host: SmtpHost, timeout_s: float) -> None:
        """`timeout_s`: for each command, and each reply but the final one."""
        self._wire, self._timeout_s = host.wire, timeout_s
        self._pipelining = host.has_extn("pipelining")
        self.open = True

    def end(self, farewell: bytes = b"") -> None:
        self.open = False
        self._wire.end(farewell)

    def answers(self) -> bool:
        """Whether the server answers NOOP, in time and in step."""
        try:
            self._stay_in_step("noop")
            self._say(b"NOOP\r\n")
            return self._reply("noop", self._timeout_s * CHECK_SHARE).accepted
        except Broken:
            return False

    def send(self, mail: Mail, may_go: Callable[[], bool]) -> None:
        """One mail transaction (RFC 5321 §3.3). Raises MailFault, or Broken when the connection can no longer
        be used. `may_go` is asked last, right before the content."""
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
            self.end()
            raise MailFault(Blame.MOMENT, "lease lost")
        final = self._hand_over(mail.content)
        if not final.accepted:
            self.end()
            raise MailFault(Blame.MOMENT, final.told("content"))

    def _pipeline(self, sender: bytes, recipient: bytes, data: bytes) -> MailFault | None:
        """Sends the envelope and DATA in one write. Returns a refusal; None when the content may follow."""
        self._say(sender + recipient + data)
        told, asked = self._answer("sender"), self._reply("recipient")
        ready = self._reply("data")
        if not told.refused and asked.accepted:
            return self._ready(ready)
        _expect(asked.refused, asked, "recipient")
        # RFC 2920 §3.1 lets a server accept DATA although it accepted no recipient. Then it waits for a
        # content, and to close the connection is clearer than to send an empty mail.
        _expect(ready.refused or ready.code == SEND_CONTENT, ready, "data")
        if ready.code == SEND_CONTENT:
            self.end()
        return sender_refused(told) if told.refused else recipient_refused(asked)

    def _step_by_step(self, sender: bytes, recipient: bytes, data: bytes) -> MailFault | None:
        """The same, with each command after the reply to the one before."""
        self._say(sender)
        told = self._answer("sender")
        if told.refused:
            return sender_refused(told)
        self._say(recipient)
        asked = self._answer("recipient")
        if asked.refused:
            return recipient_refused(asked)
        self._say(data)
        return self._ready(self._reply("data"))

    def _ready(self, reply: Reply) -> MailFault | None:
        """None when the server waits for the content. Where it refuses DATA, the connection ends."""
        _expect(reply.refused or reply.code == SEND_CONTENT, reply, "data")
        if reply.code == SEND_CONTENT:
            return None
        self.end()
        return MailFault(Blame.MOMENT, reply.told("data"))

    def _hand_over(self, content: bytes) -> Reply:
        """Sends the content. Returns the final reply."""
        try:
            self._say(content + b".\r\n")
            return self._answer("content", FINAL_REPLY_TIMEOUT_S)
        except Broken as broken:
            broken.content_sent = True
            raise

    def _leave(self) -> None:
        """Resets a refused transaction, so that the connection can carry the next one."""
        if not self.open:
            return
        try:
            self._say(b"RSET\r\n")
            if self._reply("reset", self._timeout_s * CHECK_SHARE).accepted:
                return
        except Broken:
            pass
        self.end()

    def _stay_in_step(self, stage: str) -> None:
        if not self._wire.quiet():
            raise Broken(f"{stage} {BROKEN}")

    def _say(self, octets: bytes) -> None:
        self._wire.begin(self._timeout_s)
        try:
            self._wire.write(octets)
        except OSError as error:
            raise Broken("write broken") from error

    def _answer(self, stage: str, timeout_s: float = 0.0) -> Reply:
        """A reply that accepts or refuses."""
        reply = self._reply(stage, timeout_s)
        _expect(reply.accepted or reply.refused, reply, stage)
        return reply

    def _reply(self, stage: str, timeout_s: float = 0.0) -> Reply:
        """One reply, by default within MAIL_TIMEOUT. Raises Broken when there is none, and for 421."""
        self._wire.begin(timeout_s or self._timeout_s)
        try:
            reply = self._wire.reply()
        except TimeoutError as error:
            raise Broken(f"{stage} timeout", timed_out=True) from error
        except OSError as error:
            raise Broken(f"{stage} {BROKEN}") from error
        _expect(reply.code != CLOSING, reply, stage)
        return reply


def _expect(in_step: bool, reply: Reply, stage: str) -> None:
    if not in_step:
        raise Broken(reply.told(stage))


class SmtpSession:
    """One sender's way to the mail server. Not to be shared between threads: every sender has its own."""

    def __init__(self, mail: SmtpMail) -> None:
        self._mail = mail
        self._conversation: Conversation | None = None
        self._opened = self._used = 0.0
        self._mails = 0

    def send(self, mail: Mail, may_go: Callable[[], bool] = lambda: True) -> None:
        """Returns when the server has accepted the mail (250 after DATA). Raises MailFault.

        `may_go` is asked last, right before the content: if false, the mail is not sent. A kept connection
        that breaks before the content is replaced, and a new one once: the mail was not accepted.
        """
        new = 0
        while True:
            kept = self._keep_healthy()
            new += kept is None
            try:
                (kept or self._open()).send(mail, may_go)
                break
            except Broken as broken:
                self._end()
                hopeless = kept is None and (broken.timed_out or new == NEW_CONNECTIONS)
                if broken.content_sent or hopeless:
                    raise MailFault(Blame.SERVER, broken.code) from broken
        self._used = time.monotonic()
        self._mails += 1

    @property
    def connected(self) -> bool:
        return self._conversation is not None and self._conversation.open

    def probe(self) -> None:
        """Opens a connection, up to the login. Raises MailFault."""
        try:
            if self._keep_healthy() is None:
                self._open()
        except Broken as broken:
            raise MailFault(Blame.SERVER, broken.code, connected=False) from broken

    def close(self) -> None:
        """Closes the connection; says QUIT without waiting for the reply."""
        self._end(b"QUIT\r\n")

    def close_if_idle(self) -> None:
        if self.connected and time.monotonic() - self._used > MAX_IDLE_S:
            self.close()

    def _end(self, farewell: bytes = b"") -> None:
        conversation, self._conversation = self._conversation, None
        if conversation is not None and conversation.open:
            conversation.end(farewell)

    def _keep_healthy(self) -> Conversation | None:
        """The kept connection; None when there is none, or it was too old or no longer answered."""
        now = time.monotonic()
        if now - self._opened > MAX_AGE_S or self._mails >= MAX_MAILS:
            self.close()
        kept = self._conversation
        if kept is None or not kept.open:
            return None
        if now - self._used > CHECK_AFTER_IDLE_S and not kept.answers():
            self._end()
            return None
        return kept

    def _open(self) -> Conversation:
        """Connects, starts TLS, logs in. Raises Broken when the server broke off, else MailFault."""
        try:
            host = self._mail.connect().configure_host()
        except (OSError, ValueError) as error:
            fault = connection_fault(error)
            if fault.code.endswith(BROKEN):
                raise Broken(fault.code) from error
            raise fault from error
        self._conversation = Conversation(host, self._mail.timeout_s)
        self._opened = self._used = time.monotonic()
        self._mails = 0
        return self._conversation
