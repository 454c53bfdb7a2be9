"""How a mail travels: each sender keeps one SMTP connection, which is opened when needed, checked and
renewed.

What is said over it: app/mail/conversation.py. Imports of the app only the room.
"""

import time
from collections.abc import Callable

from app.mail.connection import BROKEN, SmtpMail, connection_fault
from app.mail.conversation import Broken, Conversation
from app.mail.messages import Mail
from app.mail.replies import Blame, MailFault

__all__ = ["MAX_IDLE_S", "MAX_MAILS", "Blame", "MailFault", "SmtpMail", "SmtpSession"]

CHECK_AFTER_IDLE_S = 2.0
"""A connection that rested longer is checked with NOOP before it gets a mail. One that was just used is not:
if it is dead, that shows before the content, and the mail goes over a new one."""

MAX_IDLE_S = 60.0
"""After this a resting connection is closed with QUIT: servers drop it after some minutes."""

MAX_AGE_S = 300.0
MAX_MAILS = 100
"""After these a connection is made anew, so that load balancers and changed addresses come to bear."""

NEW_CONNECTIONS = 2
"""How many may break while they carry one mail, before it is put off."""


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
        that breaks before the content is replaced, and a new one once, since the mail cannot have been
        accepted.
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
        """Connects, starts TLS, logs in. Raises Broken when the server broke off, and MailFault for
        everything else."""
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
