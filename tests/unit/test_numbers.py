"""Identification numbers: their digits, their check digit, and how a person sees them."""

import secrets
import sys
import unicodedata
from collections.abc import Callable
from inspect import signature
from itertools import count

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from stdnum import damm

from app.domain.number import NumberGenerator, digits_of, grouped, is_well_formed

DIGITS = st.integers(min_value=10, max_value=18)
SHARD = st.integers(min_value=0, max_value=999)

PLANES = [chr(point) for point in range(0x20000)]
"""The planes of Unicode that have spaces, dashes and digits: beyond are ideographs, tags and private use."""
SPACES = [character for character in PLANES if character.isspace()]
DASHES = [character for character in PLANES if unicodedata.category(character) == "Pd"]
DASHES += list("\u2043\u2053\u207b\u208b\u2212")
DOTS = list(".\u00b7\u0387\u06d4\u2022\u2024\u2027\u2219\u22c5\u30fb\u3002\ufe52\uff0e\uff61")
INVISIBLE = list(
    "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\u061c\ufeff\u00ad"
)
"""Marks of writing directions, and what else is not seen: copied along from web pages and mails."""

ZEROS = [character for character in PLANES if character.isdecimal() and unicodedata.decimal(character) == 0]
"""The zero of every script; its other digits follow it."""


@st.composite
def numbers(draw: Callable[..., int]) -> str:
    """Any number that any generator can draw."""
    generator = NumberGenerator(draw(DIGITS), lambda below: draw(st.integers(0, below - 1)))
    return generator.draw(draw(SHARD))


@given(DIGITS, SHARD, st.data())
def test_a_number_has_its_digits_no_leading_zero_its_shard_and_a_check_digit(
    digits: int, shard: int, data: st.DataObject
) -> None:
    """The whole layout, from left to right."""
    number = NumberGenerator(digits, lambda below: data.draw(st.integers(0, below - 1))).draw(shard)
    assert len(number) == digits
    assert number.isascii()
    assert number.isdigit()
    assert number[0] != "0"
    assert number[-4:-1] == f"{shard:03}"
    assert damm.is_valid(number)


@given(DIGITS)
def test_the_smallest_and_the_largest_draw_stay_inside_the_digits(digits: int) -> None:
    """Every value of the source gives a number, and the ends are 100…0 and 999…9."""
    secret_digits = digits - 4
    smallest = NumberGenerator(digits, lambda _: 0).draw(0)
    largest = NumberGenerator(digits, lambda below: below - 1).draw(999)
    assert smallest[:secret_digits] == "1" + "0" * (secret_digits - 1)
    assert largest[:secret_digits] == "9" * secret_digits


def test_ten_digits_leave_nine_hundred_thousand_possibilities_to_a_guesser() -> None:
    """What the threat model counts with: as many as the six digits that everybody sends."""
    assert NumberGenerator(10).possibilities == 900_000


@given(numbers())
def test_what_is_drawn_is_well_formed_and_other_lengths_are_not(number: str) -> None:
    """A number that was copied with a digit too few or too many costs no try."""
    assert is_well_formed(number, len(number))
    assert not is_well_formed(number[:-1], len(number))
    assert not is_well_formed(number + "0", len(number))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "482109375x",
        "\u0664" * 10,
        "\u00b2" * 10,
        "-482109375",
        "482 109 37",
    ],
)
def test_what_cannot_have_been_drawn_is_not_well_formed(text: str) -> None:
    """Letters, signs, digits of other scripts, too few digits."""
    assert not is_well_formed(text, 10)


@given(numbers(), st.data())
def test_a_single_wrong_digit_is_noticed(number: str, data: st.DataObject) -> None:
    """The most frequent slip of somebody who types."""
    place = data.draw(st.integers(0, len(number) - 1))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != number[place]]))
    assert not damm.is_valid(number[:place] + other + number[place + 1 :])


@given(numbers(), st.data())
def test_two_swapped_neighbours_are_noticed(number: str, data: st.DataObject) -> None:
    """The second most frequent slip."""
    place = data.draw(st.integers(0, len(number) - 2))
    swapped = number[:place] + number[place + 1] + number[place] + number[place + 2 :]
    assert swapped == number or not damm.is_valid(swapped)


def test_draws_that_repeat_are_offered_once() -> None:
    """A candidate that is taken would be taken at its second try too."""
    source = count()
    generator = NumberGenerator(10, lambda _: next(source) // 2)
    candidates = generator.draw_distinct(7, 8)
    assert len(candidates) == len(set(candidates)) == 4


def test_the_source_of_randomness_is_the_operating_systems() -> None:
    """`random` could be predicted from a few numbers."""
    assert signature(NumberGenerator).parameters["randbelow"].default is secrets.randbelow


def test_a_thousand_draws_of_one_shard_differ() -> None:
    """With eighteen digits a repeat in a thousand draws has a chance of 1 in 10^8."""
    generator = NumberGenerator(18)
    assert len({generator.draw(123) for _ in range(1000)}) == 1000


@given(numbers())
def test_a_person_sees_groups_of_three_or_four(number: str) -> None:
    """Nothing but spaces is added, and what is shown can be handed in as it stands."""
    *full, last = grouped(number).split(" ")
    assert {len(group) for group in full} == ({3} if len(number) == 10 else {4})
    assert 1 <= len(last) <= 4
    assert "".join([*full, last]) == digits_of(grouped(number)) == number


def test_ten_digits_are_shown_as_a_telephone_number_is() -> None:
    """The form that the mail and the docs show."""
    assert grouped("4821093753") == "482 109 3753"


def test_longer_numbers_are_shown_in_fours() -> None:
    """For those who set NUMBER_DIGITS."""
    assert grouped("482109375523") == "4821 0937 5523"


@given(numbers(), st.data())
def test_what_stands_between_the_digits_of_a_pasted_number_does_not_count(
    number: str, data: st.DataObject
) -> None:
    """Every Unicode space, line end, dash and dot, and the marks that nobody sees, wherever they stand."""
    skipped = st.text(st.sampled_from(SPACES + DASHES + DOTS + INVISIBLE), max_size=3)
    pasted = data.draw(skipped) + "".join(digit + data.draw(skipped) for digit in number)
    assert digits_of(pasted) == number


@pytest.mark.parametrize(
    "characters", [SPACES, DASHES, DOTS, INVISIBLE], ids=["spaces", "dashes", "dots", "unseen"]
)
def test_each_of_them_is_skipped(characters: list[str]) -> None:
    """All that there are; among the spaces are the line ends CR, LF, NEL, LS and PS."""
    assert [character for character in characters if digits_of(f"4{character}2") != "42"] == []


@given(numbers(), st.sampled_from(ZEROS))
def test_digits_of_every_script_count(number: str, zero: str) -> None:
    """Full-width as East Asian keyboards type them, Arabic, Persian, Devanagari and others."""
    assert digits_of("".join(chr(ord(zero) + int(digit)) for digit in number)) == number


@pytest.mark.parametrize(
    "number",
    [
        "\uff14\uff18\uff12 \uff11\uff10\uff19 \uff13\uff17\uff15\uff13",  # full-width
        "\u0664\u0668\u0662 \u0661\u0660\u0669 \u0663\u0667\u0665\u0663",  # Arabic
        "\u06f4\u06f8\u06f2 \u06f1\u06f0\u06f9 \u06f3\u06f7\u06f5\u06f3",  # Persian
        "\u200f482 109 3753\u200f",
        "482\u2011109\u20113753",  # non-breaking hyphens
        "482.109.3753.",
        "482 109 3753\r\n",
    ],
)
def test_what_people_paste_is_read(number: str) -> None:
    """Some of what real clipboards hold."""
    assert digits_of(number) == "4821093753"


@given(numbers(), st.characters(categories=["L", "M", "No", "Nl", "S"]), st.data())
def test_letters_and_signs_stay_so_that_the_text_is_no_number(
    number: str, letter: str, data: st.DataObject
) -> None:
    """An O is no 0: it is mistyped, and costs no try. Of the signs only minus and dots are skipped."""
    assume(letter not in DASHES + DOTS)
    place = data.draw(st.integers(0, len(number)))
    typed = digits_of(number[:place] + letter + number[place:])
    assert letter in typed
    assert not is_well_formed(typed, len(number))


def test_no_letter_is_skipped() -> None:
    """Of no script."""
    every = map(chr, range(sys.maxunicode + 1))
    assert [letter for letter in every if letter.isalpha() and digits_of(letter) != letter] == []
