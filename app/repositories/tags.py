"""Tags: each mail goes out under a name of its own, which only we can make and which a report brings back.

52 characters of lower-case base32, so that no server on the way spoils them: the day (3), the user id (26),
the first 40 bits of the registration id (8), how often the mail was asked for again (2) and a MAC (13: keyed
BLAKE2b, 64 bits, over what stands before). The key comes from INDEX_KEY, so to change SECRET_KEY voids none.
"""

import hashlib
import hmac
from typing import Final

from app.domain.registration import Registration
from app.domain.report import TAG, Tag
from app.repositories.keys import BASE32, PAIRS, derive_key

OLDEST_DAYS: Final = 30
"""A mail server gives up after some days; a complaint may take weeks."""

AHEAD_DAYS: Final = 1
"""The clock of Redis, by which mails are dated, may be ahead of ours around midnight."""

DAY_S: Final = 86_400
DAYS: Final = 32**3
"""Until the year 2059; then the days begin anew."""

REGISTRATION_DIGITS: Final = 10
"""Hexadecimal digits of the registration id: 40 bits."""

RESENDS: Final = 1024
MAC_LENGTH: Final = 13


class Tags:
    """Makes tags, and reads those that it has made. Without an index key there are none."""

    def __init__(self, index_key: str | None) -> None:
        self._key = derive_key(index_key, "bounce") if index_key else b""

    def make(self, registration: Registration) -> str:
        """The tag of a mail: the same for each attempt at it."""
        day = registration.asked_for_ms // (DAY_S * 1000) % DAYS
        begins = int(registration.registration_id[:REGISTRATION_DIGITS], 16)
        text = (
            _base32(day, 3)
            + registration.user_id
            + _base32(begins, 8)
            + PAIRS[registration.resends % RESENDS]
        )
        return text + self._mac(text)

    def read(self, text: str, now_s: float) -> Tag | None:
        """The mail that a tag names, in upper or lower case. None: not made by us, or too old."""
        text = text.lower()
        if not self._key or not TAG.fullmatch(text):
            return None
        said, mac = text[:-MAC_LENGTH], text[-MAC_LENGTH:]
        age = (int(now_s) // DAY_S - _number(said[:3]) + AHEAD_DAYS) % DAYS
        if not hmac.compare_digest(mac, self._mac(said)) or age > OLDEST_DAYS + AHEAD_DAYS:
            return None
        begins = f"{_number(said[29:37]):0{REGISTRATION_DIGITS}x}"
        return Tag(said[3:29], begins, _number(said[37:]))

    def _mac(self, text: str) -> str:
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=self._key, person=b"cedula bounce")
        return _base32(int.from_bytes(digest.digest(), "big"), MAC_LENGTH)


def _base32(value: int, length: int) -> str:
    return "".join([BASE32[value >> shift & 31] for shift in range(5 * length - 5, -1, -5)])


def _number(text: str) -> int:
    value = 0
    for char in text:
        value = value << 5 | BASE32.index(char)
    return value
