"""Messages of strangers, taken apart in a bounded time.

Everybody who knows the address may send one. The costs of the `email` package, and of the patterns that read
the texts, grow with the square of a line, a header or the depth. So a message is cut to size first, and one
of too many layers is not taken apart at all. Imports nothing of the app.
"""

import base64
import binascii
import email
import quopri
import re
from collections.abc import Iterator
from email.message import Message
from typing import Final, NamedTuple

MAX_BYTES: Final = 256 * 1024
"""The rest is not read. Our own mails have 12 KB, and a report brings back at most one of them."""

MAX_LINES: Final = 5000
MAX_LINE: Final = 500
"""RFC 5322 §2.1.1 allows 998 characters; what matters stands at its beginning."""

MAX_FOLDS: Final = 6
"""Indented lines in a row that are read, at most: so long may a header go on. In a body the rest is nothing
that matters."""

MAX_LAYERS: Final = 20
MAX_DELIMITERS: Final = 500
MAX_PARTS: Final = 32

LAYER: Final = re.compile(rb"content-type\s*:\s*(?:multipart|message)\s*/", re.IGNORECASE)
DELIMITER: Final = re.compile(rb"^--", re.MULTILINE)

STATUS: Final = ("message/delivery-status", "message/global-delivery-status")
FEEDBACK: Final = ("message/feedback-report",)
DISPOSITION: Final = ("message/disposition-notification", "message/global-disposition-notification")
RETURNED: Final = (
    "message/rfc822",
    "message/global",
    "message/global-headers",
    "message/rfc822-headers",
    "text/rfc822-headers",
)


class Incoming(NamedTuple):
    """A message in its parts; bytes of other charsets than ASCII are as Latin-1 has them.

    `headers`: of the message itself. `text`: for a person. `status`, `feedback` and `disposition`: the parts
    for machines (RFC 3464, 5965, 8098), empty where there are none. `returned`: what came back of the
    original message. `raw`: all of it.
    """

    headers: Message
    text: str = ""
    status: str = ""
    feedback: str = ""
    disposition: str = ""
    returned: str = ""
    raw: str = ""

    def all(self, *names: str) -> str:
        """The values of these headers of the message itself, one a line."""
        return "\n".join(str(value) for name in names for value in self.headers.get_all(name, []))


def opened(data: bytes) -> Incoming:
    """The message, as far as it can be read."""
    tame = _tame(data[:MAX_BYTES])
    raw = data[:MAX_BYTES].decode("latin-1")
    if len(LAYER.findall(tame)) > MAX_LAYERS or len(DELIMITER.findall(tame)) > MAX_DELIMITERS:
        return Incoming(Message(), raw=raw)
    message = email.message_from_bytes(tame)
    found: dict[str, list[str]] = {}
    for part in _leaves(message):
        kind = part.get_content_type()
        if kind.startswith(("text/", "message/")):
            found.setdefault(kind, []).append(_content(part))
    return Incoming(
        headers=message,
        text=_joined(found, "text/plain") or re.sub("<[^<>]{0,500}>", " ", _joined(found, "text/html")),
        status=_joined(found, *STATUS),
        feedback=_joined(found, *FEEDBACK),
        disposition=_joined(found, *DISPOSITION),
        returned=_joined(found, *RETURNED),
        raw=raw,
    )


def fields(text: str) -> Iterator[dict[str, str]]:
    """The groups of fields in a part for machines; names in lower case."""
    for group in re.split(r"\n[ \t]*\n", text):
        lines = re.sub(r"\n[ \t]+", " ", group).split("\n")
        pairs = (line.partition(":") for line in lines)
        yield {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}


def _tame(data: bytes) -> bytes:
    """Cut to short lines, not too many of them, and few continuation lines of a header."""
    lines, folds = [], 0
    for line in re.sub(rb"\r\n?", b"\n", data).split(b"\n", MAX_LINES)[:MAX_LINES]:
        folds = folds + 1 if line[:1] in (b" ", b"\t") else 0
        if folds <= MAX_FOLDS:
            lines.append(line[:MAX_LINE])
    return b"\n".join(lines)


def _leaves(message: Message) -> Iterator[Message]:
    """The parts that have no parts. Messages within the message stay whole."""
    waiting = [message]
    for _ in range(MAX_PARTS):
        if not waiting:
            return
        part = waiting.pop()
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            waiting += reversed(_inner(part))
        else:
            yield part


def _inner(part: Message) -> list[Message]:
    """The parts of a part."""
    payload: object = part.get_payload()
    return [inner for inner in payload if isinstance(inner, Message)] if isinstance(payload, list) else []


def _content(part: Message) -> str:
    """The text of a part, decoded. The `email` package parses `message/…` also where it is encoded."""
    if not part.is_multipart():
        return _text(part)
    data = "\n\n".join(map(_rebuilt, _inner(part))).encode("latin-1", "replace")
    coding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
    if coding == "quoted-printable":
        data = quopri.decodestring(data)
    elif coding == "base64":
        data = _base64(data)
    return data.decode("latin-1").replace("\r\n", "\n")


def _text(part: Message) -> str:
    """The text of a part without parts, read as Latin-1: some charsets that it may name take quadratic
    time."""
    data = part.get_payload(decode=True)
    return data.decode("latin-1").replace("\r\n", "\n") if isinstance(data, bytes) else ""


def _base64(data: bytes) -> bytes:
    letters = re.sub(rb"[^A-Za-z0-9+/]", b"", data)
    try:
        return base64.b64decode(letters[: len(letters) // 4 * 4])
    except binascii.Error:
        return data


def _rebuilt(message: Message) -> str:
    """A message within the message: its headers and, unless it has parts, its text."""
    gap = [] if message.defects else [""]  # as in headers of which one line is none
    return "\n".join([*(f"{name}: {value}" for name, value in message.items()), *gap, _text(message)])


def _joined(found: dict[str, list[str]], *kinds: str) -> str:
    return "\n\n".join(text for kind in kinds for text in found.get(kind, []))
