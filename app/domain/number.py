"""Identification numbers: how they are built, drawn and shown.

A number of `digits` digits is, from left to right: the secret digits (no leading zero), three digits that
name the shard of the address, and one Damm check digit (H. M. Damm, 2004: finds every single wrong digit
and every swap of neighbours).
"""

import secrets
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


def grouped(number: str) -> str:
    """The number as a person reads it, in groups of four: `4821 0937 5523`."""
    return " ".join(number[start : start + 4] for start in range(0, len(number), 4))
