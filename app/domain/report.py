"""What is reported of a mail after the mail server has accepted it, and which mail is meant."""

import re
from enum import StrEnum
from typing import Final, NamedTuple

TAG_LENGTH: Final = 52
TAG: Final = re.compile(rf"(?<![a-z2-7])[a-z2-7]{{{TAG_LENGTH}}}(?![a-z2-7])", re.ASCII | re.IGNORECASE)
"""What looks like a tag, wherever it stands."""


class ReportKind(StrEnum):
    """What a report says of its mail."""

    BOUNCED = "bounced"  # it came back for good
    SOFT = "soft"  # it is late, or came back for a reason that may pass
    COMPLAINED = "complained"  # the person called it unwanted
    DELIVERED = "delivered"
    NOTHING = "nothing"  # no report: an out-of-office answer, say


class Report(NamedTuple):
    """`code`: of the server that reports, such as `5.1.1`, or empty. `candidates`: what may be the tag,
    the likeliest first. None of it can be trusted: only a tag with a good MAC names the mail."""

    kind: ReportKind
    code: str = ""
    candidates: tuple[str, ...] = ()


class Tag(NamedTuple):
    """Names one mail. `registration`: what the id of its registration begins with. `resends`: as there."""

    user_id: str
    registration: str
    resends: int


class Outcome(StrEnum):
    """What came of a report."""

    NOTED = "noted"  # written down, or a delivery
    NO_TAG = "no_tag"  # no good tag in it
    NOT_LIVE = "not_live"  # its registration was replaced, used or erased, or has expired
    FOREIGN = "foreign"  # another service's mail
    IGNORED = "ignored"  # it says nothing


NOT_FOR_GOOD: Final = ("5.2.2", "5.3.", "5.7.")
"""Permanent by their class (RFC 3463), but not the address's fault: a full mailbox, a mail system in trouble,
a policy or a filter."""


def failure(code: str) -> ReportKind:
    """Whether a mail that failed with this status failed for good. `code`: a status (RFC 3463), the three
    digits of SMTP, or empty."""
    if code.startswith(NOT_FOR_GOOD) or (code and code[0] != "5") or code == "552":
        return ReportKind.SOFT
    return ReportKind.BOUNCED
