"""What a message says of a mail of ours: that it came back, is late, is unwanted, was delivered, or nothing.

It is read by RFC 3464 and RFC 5965 where mail servers keep to them, else by flufl.bounce. The result is only
a proposal: it is believed once its tag has proved that the message answers a mail of ours. Never raises, and
takes a bounded time. Imports of the app only `domain` and the room.
"""

import email
import logging
import re
from email.message import Message
from typing import Final

from flufl.bounce import all_failures

from app.domain.report import TAG, Report, ReportKind, failure
from app.mail.incoming import Incoming, fields, opened

MAX_CANDIDATES: Final = 16

SEVERITY: Final = (ReportKind.DELIVERED, ReportKind.SOFT, ReportKind.BOUNCED)

RECIPIENTS: Final = ("To", "Delivered-To", "X-Original-To", "Envelope-To")
OF_OUR_MAIL: Final = re.compile(
    r"^[> \t]*(?:return-path|message-id)[ \t]*:.*(?:\n[ \t].*)?", re.IGNORECASE | re.MULTILINE
)

ENHANCED: Final = re.compile(r"(?<![\d.])[245]\.[0-7]\.\d{1,3}(?!\.?\d)")
"""A status (RFC 3463), and no version or IP address."""

BASIC: Final = re.compile(r"(?<![\d.])[245][0-5]\d(?=[ -])")
SAID: Final = re.compile(
    r"(?:<<<|said|error|smtp|code|reply|respon)[^\n]{0,60}?(?<![\d.])([45][0-5]\d)(?![\d.])", re.IGNORECASE
)
FULL: Final = re.compile(
    r"over ?quota|quota (?:is )?exceeded|exceed\w{0,3} [^\n]{0,30}quota|mailbox (?:is )?full", re.IGNORECASE
)
FULL_CODE: Final = "5.2.2"

MAIL_SYSTEM: Final = re.compile(
    r"mailer-?daemon|postmaster|mail ?delivery|mail-?system|system administrator|mail administrator",
    re.IGNORECASE,
)
AUTOMATIC: Final = ("X-Autoreply", "X-Autorespond", "X-Auto-Reply")

MAX_TEXT: Final = 16 * 1024
MAX_TEXT_LINE: Final = 200
"""For flufl.bounce, which tries some sixty patterns on each line of a text."""

FOR_FLUFL: Final = ("From", "X-Mailer", "X-Failed-Recipients")

logging.getLogger("flufl.bounce").setLevel(logging.CRITICAL)  # it logs what it cannot read; we go on


def read(data: bytes) -> Report:
    """What this message (RFC 5322) says, and of which mail."""
    try:
        incoming = opened(data)
        kind, code = _said(incoming)
        return Report(kind, code, tuple(_candidates(incoming)))
    except Exception:  # noqa: BLE001 - strangers wrote it, and libraries may fail at it: then it says nothing
        return Report(ReportKind.NOTHING)


def _said(incoming: Incoming) -> tuple[ReportKind, str]:
    if incoming.status:
        return _status(incoming.status)
    if incoming.feedback:
        abuse = any(group.get("feedback-type", "").lower() == "abuse" for group in fields(incoming.feedback))
        return (ReportKind.COMPLAINED if abuse else ReportKind.NOTHING), ""
    if incoming.disposition or not _is_from_a_mail_system(incoming):
        return ReportKind.NOTHING, ""
    return _odd(incoming)


def _status(text: str) -> tuple[ReportKind, str]:
    """RFC 3464: the worst outcome of all recipients."""
    found = [_recipient(group) for group in fields(text) if "action" in group]
    found = [each for each in found if each[0] in SEVERITY]
    return max(found, key=lambda each: SEVERITY.index(each[0]), default=(ReportKind.NOTHING, ""))


def _recipient(group: dict[str, str]) -> tuple[ReportKind, str]:
    action, code = group["action"].lower(), _code(group.get("status", ""), group.get("diagnostic-code", ""))
    if action.startswith(("fail", "error")):  # opensmtpd: error
        return failure(code), code
    if action.startswith("delay"):
        return ReportKind.SOFT, code
    is_there = action.startswith(("deliver", "relay", "expand"))
    return (ReportKind.DELIVERED if is_there else ReportKind.NOTHING), code


def _code(status: str, diagnostic: str) -> str:
    """The status. Where that is missing or only tells the class, the diagnostic code is better."""
    found = ENHANCED.search(status)
    if found and not found[0].endswith(".0.0"):
        return found[0]
    better = ENHANCED.search(diagnostic) or BASIC.search(diagnostic)
    if FULL.search(diagnostic) and (not better or better[0].startswith("5")):
        return FULL_CODE
    return better[0] if better else found[0] if found else ""


def _is_from_a_mail_system(incoming: Incoming) -> bool:
    """And not from a person's mailbox: an out-of-office notice goes to the envelope sender, too."""
    if incoming.all("X-Failed-Recipients"):
        return True
    submitted = incoming.all("Auto-Submitted").lower()
    answers = "auto-replied" in submitted or "auto_reply" in incoming.all("Precedence").lower()
    return bool(
        MAIL_SYSTEM.search(incoming.all("From")) and not answers and not incoming.all(*AUTOMATIC).strip()
    )


def _odd(incoming: Incoming) -> tuple[ReportKind, str]:
    """What mail servers say that follow no standard."""
    temporary, permanent = all_failures(_for_flufl(incoming))
    if not temporary and not permanent:
        return ReportKind.NOTHING, ""
    text = OF_OUR_MAIL.split(incoming.text[:MAX_TEXT], maxsplit=1)[0]
    found, said = ENHANCED.search(text), SAID.search(text)
    code = found[0] if found else said[1] if said else ""
    if FULL.search(text) and not code.startswith("4"):
        code = FULL_CODE
    return (failure(code) if permanent else ReportKind.SOFT), code


def _for_flufl(incoming: Incoming) -> Message:
    """The message for flufl.bounce: cut to what its patterns can take, in a form that each detector reads."""
    head = [f"{name}: {_one_line(incoming.all(name))}" for name in FOR_FLUFL if incoming.all(name)]
    lines = (line[:MAX_TEXT_LINE] for line in incoming.text[:MAX_TEXT].split("\n"))
    part = ["--=_", "Content-Type: text/plain", "Content-Description: notification", "", *lines, "--=_--"]
    return email.message_from_string(
        "\n".join([*head, 'Content-Type: multipart/mixed; boundary="=_"', "", *part])
    )


def _one_line(text: str) -> str:
    return " ".join(text[:MAX_TEXT_LINE].split())


def _candidates(incoming: Incoming) -> list[str]:
    """What looks like a tag, from the likeliest place to the least likely."""
    returned = OF_OUR_MAIL.findall(incoming.returned) + OF_OUR_MAIL.findall(incoming.text)
    places = (
        incoming.all(*RECIPIENTS),
        "\n".join(returned),
        incoming.status,
        incoming.feedback,
        incoming.returned,
        incoming.text,
        incoming.raw,
    )
    found = dict.fromkeys(tag.lower() for place in places for tag in TAG.findall(place))
    return list(found)[:MAX_CANDIDATES]
