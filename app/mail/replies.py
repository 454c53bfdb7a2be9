"""What the replies of a mail server mean (RFC 5321 §4.2, RFC 3463), and whose fault a refusal is.

Imports nothing of the app.
"""

import re
from enum import StrEnum
from typing import NamedTuple

REFUSED_FOR_GOOD = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})
"""RFC 3463/7505 codes that blame the recipient's address. 5.1.7 and 5.1.8 blame the sender's."""

REFUSED_FOR_GOOD_BARE = frozenset({550, 551, 553})

OPERATORS_FAULT = re.compile(r"5\.7\.\d+|5\.1\.[78]")
"""Answers to RCPT that blame us: relaying denied, login or encryption required, sender or host refused."""

LOGIN_WANTED = 530

CLOSING = 421
"""RFC 5321 §3.8: at any time; the server ends the connection."""

SEND_CONTENT = 354

_ENHANCED = re.compile(rb"([245]\.\d{1,3}\.\d{1,3})(?![.\w])")
"""At the start of a reply's text (RFC 2034); servers put a space after it, or a colon, or nothing."""


class Blame(StrEnum):
    """Whose fault it is that a mail did not go out, which decides what happens next."""

    ADDRESS = "address"  # refused for good
    SERVER = "server"  # cannot be reached, breaks off or is out of step: the breaker counts it
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
        """421 in place of the greeting: the server takes no more connections, or is shutting down."""
        return not self.connected and self.code == f"connect {CLOSING}"


class Reply(NamedTuple):
    """One SMTP reply: its code, and the text of each of its lines."""

    code: int
    lines: list[bytes]

    @property
    def accepted(self) -> bool:
        """250, or another of its kind (RFC 5321 §4.2.2: x5z is about mail), such as 251."""
        return self.code // 10 == 25

    @property
    def refused(self) -> bool:
        return self.code >= 400

    @property
    def enhanced(self) -> str:
        """The enhanced status code of the first line that has one; often there is none."""
        return next((found[1].decode() for line in self.lines if (found := _ENHANCED.match(line))), "")

    def told(self, stage: str) -> str:
        return f"{stage} {self.code} {self.enhanced}".rstrip()


def sender_refused(reply: Reply) -> MailFault:
    """What a refused MAIL means."""
    return MailFault(Blame.OPERATOR if reply.code >= 500 else Blame.MOMENT, reply.told("sender"))


def recipient_refused(reply: Reply) -> MailFault:
    """What a refused RCPT means."""
    return MailFault(_blame_of_recipient(reply), reply.told("recipient"))


def _blame_of_recipient(reply: Reply) -> Blame:
    enhanced = reply.enhanced
    if enhanced in REFUSED_FOR_GOOD and reply.code >= 500:
        return Blame.ADDRESS
    if not enhanced and reply.code in REFUSED_FOR_GOOD_BARE:
        return Blame.ADDRESS
    if reply.code == LOGIN_WANTED or OPERATORS_FAULT.fullmatch(enhanced):
        return Blame.OPERATOR
    return Blame.MOMENT
