"""Identification numbers: how they are built, drawn and shown.

A number of `digits` digits is, from left to right: the secret digits (no leading zero), three digits that
name the shard of the address, and one Damm check digit (H. M. Damm, 2004: finds every single wrong digit
and every swap of neighbours).
"""

import secrets
import unicodedata
from collections.abc import Callable

from stdnum import damm

SHARDS = 1000
"""Shards of the number space; three digits of every number say which one."""

SHARD_DIGITS = 3
CHECK_DIGITS = 1

RandBelow = Callable[[int], int]


class NumberGenerator:
    """Draws identification numbers of one length.

    `randbelow(n)` gives an integer in [0, n); tests inject their own source.
    """

    def __init__(self, digits: int, randbelow: RandBelow = secrets.randbelow) -> None:
        self.digits = digits
        self._lowest: int = 10 ** (digits - SHARD_DIGITS - CHECK_DIGITS - 1)
        self._randbelow = randbelow

    @property
    def possibilities(self) -> int:
        """How many different numbers one shard holds: what a guesser has to guess among."""
        return 9 * self._lowest

    def draw(self, shard: int) -> str:
        """One number of the shard (0 to 999), with its check digit."""
        body = f"{self._lowest + self._randbelow(self.possibilities)}{shard:03}"
        return body + str(damm.calc_check_digit(body))

    def draw_distinct(self, shard: int, count: int) -> list[str]:
        """At most `count` different numbers of the shard: a repeat would only be tried twice."""
        return list(dict.fromkeys(self.draw(shard) for _ in range(count)))


def is_well_formed(number: str, digits: int) -> bool:
    """Whether this is a number of that many digits with the right check digit."""
    return len(number) == digits and number.isascii() and number.isdigit() and bool(damm.is_valid(number))


def digits_of(text: str) -> str:
    """The digits 0 to 9 of what a person typed or pasted. Decimal digits of every script count (full-width,
    Arabic); spaces, line ends, dashes, dots and the invisible marks of writing directions are skipped.
    Anything else stays, so that the text is no number."""
    if text.isascii() and text.isdigit():
        return text
    return "".join([_read(character) for character in text])


def _read(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    skipped = character.isspace() or character in MARKS or unicodedata.category(character) in SKIPPED
    return "" if skipped else character


SKIPPED = ("Zs", "Zl", "Zp", "Pd", "Cf")
"""Unicode's general categories of spaces, dashes and format characters."""

MARKS = (
    "\u2043\u2053\u207b\u208b\u2212"  # dashes of other categories: hyphen bullet, swung dash, minus signs
    ".\u00b7\u0387\u06d4\u2022\u2024\u2027\u2219\u22c5\u3002\u30fb\ufe52\uff0e\uff61\uff65"
    "\u066b\u066c"  # the separators of Arabic numbers
)


def grouped(number: str) -> str:
    """The number as a person reads it: `482 109 3753`, longer ones in fours, `4821 0937 5523`."""
    if len(number) == 10:
        return f"{number[:3]} {number[3:6]} {number[6:]}"
    return " ".join(number[start : start + 4] for start in range(0, len(number), 4))
