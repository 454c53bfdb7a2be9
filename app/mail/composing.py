"""From what a mail says to a MIME message: a format that each mail fills in with its own values.

Composing takes a millisecond, as long as the rest of a registration; filling in takes some microseconds. The
message is `multipart/alternative` in quoted-printable ASCII, which every server takes. Each value stands on a
line of its own between two soft line breaks, so that no layout can make a line too long or cut a value.
Imports of the app only `domain` and the room.
"""

import quopri
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from email.header import Header
from email.utils import formataddr, parseaddr
from itertools import groupby
from typing import Final, NamedTuple

from app.domain.address import Address
from app.domain.service import Service
from app.mail.rendering import MARK, Rendered, mark

BOUNDARY: Final = "=_alternative"
"""Always the same, so that a repeated mail is the same mail. `=_` cannot occur in quoted-printable (RFC 2045
§6.7)."""

FOLD_AT: Final = 60
"""Characters in a line of a header: fewer than 78 also with a number of 18 digits in place of its mark."""

SOFT_BREAK: Final = b"=\r\n"

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Composed(NamedTuple):
    """The mails of one service in one language. `sender`: of the envelope. `domain`: of message ids.

    `content` is a format with `%(name)b` for to, date and message_id, which are ASCII, and for
    number, reference, issued_at and duration, which are quoted-printable.
    """

    sender: str
    domain: str
    content: bytes


def compose(service: Service, language: str, said: Rendered) -> Composed:
    """The mails of a service in one language."""
    _, sender = parseaddr(service.sender)
    headers = [
        _header("From", _from(_one_line(service.sender))),
        f"To: {mark('to')}",
        *([_header("Reply-To", [Address.known(service.support).envelope])] if service.support else []),
        _header("Subject", _words(_one_line(said.subject))),
        f"Date: {mark('date')}",
        f"Message-ID: {mark('message_id')}",
        "Auto-Submitted: auto-generated",
        "X-Auto-Response-Suppress: All",
        f"Content-Language: {language}",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/alternative; boundary="{BOUNDARY}"',
    ]
    lines = [
        *(b"".join(_pieces(header, lambda text: text.encode("ascii"))) for header in headers),
        *_part("plain", said.text),
        *_part("html", said.html),
        f"--{BOUNDARY}--".encode(),
        b"",
    ]
    content = re.sub(rb"(?m)^\.", b"..", b"\r\n".join(lines))  # RFC 5321 §4.5.2
    return Composed(sender, sender.rpartition("@")[2], content)


def quoted(text: str) -> bytes:
    """Quoted-printable in lines of at most 76 characters, with CRLF. A soft line break may follow."""
    end = "="  # keeps room for such a break in the last line
    encoded = quopri.encodestring((text + end).encode()).removesuffix(b"=3D")
    return encoded.replace(b"\n", b"\r\n")


def _part(subtype: str, text: str) -> list[bytes]:
    return [
        b"",
        f"--{BOUNDARY}".encode(),
        f'Content-Type: text/{subtype}; charset="utf-8"'.encode(),
        b"Content-Transfer-Encoding: quoted-printable",
        b"",
        _body(re.sub("\r\n?", "\n", text)),
    ]


def _body(text: str) -> bytes:
    body = b""
    for piece in _pieces(text, quoted):
        if body and piece and not body.endswith(b"\n") and not piece.startswith(b"\r"):
            body += SOFT_BREAK
        body += piece
    return body


def _pieces(text: str, encoded: Callable[[str], bytes]) -> Iterator[bytes]:
    """A format in pieces: encoded text and fields, alternately."""
    for place, part in enumerate(MARK.split(text)):
        yield b"%%(%b)b" % part.encode() if place % 2 else encoded(part).replace(b"%", b"%%")


def _header(name: str, words: Iterable[str]) -> str:
    """A header, folded at its spaces."""
    return textwrap.fill(
        " ".join(words),
        FOLD_AT,
        initial_indent=f"{name}: ",
        subsequent_indent=" ",
        break_long_words=False,
        break_on_hyphens=False,
    ).replace("\n", "\r\n")


def _from(sender: str) -> list[str]:
    name, address = parseaddr(sender)
    if _is_plain(name):
        return formataddr((name, address)).split()
    return [*_encoded(name), f"<{address}>"]


def _words(text: str) -> Iterator[str]:
    """The words of a header. Those that are plain or hold a mark stay; others are encoded (RFC 2047)."""
    words = (word for word in text.split(" ") if word)
    for marked, run in groupby(words, lambda word: MARK.search(word) is not None):
        found = list(run)
        yield from found if marked or _is_plain(" ".join(found)) else _encoded(" ".join(found))


def _encoded(text: str) -> list[str]:
    return Header(text, "utf-8", maxlinelen=FOLD_AT).encode().split()


def _is_plain(text: str) -> bool:
    """May stand in a header unencoded: ASCII, and nothing that a mail program would decode."""
    return text.isascii() and "=?" not in text


def _one_line(text: str) -> str:
    """Without line ends, which could begin another header, and other control characters."""
    return _CONTROL.sub(" ", text)
