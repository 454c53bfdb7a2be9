"""Identification numbers: their digits, their check digit, and how a person sees them."""

import secrets
from collections.abc import Callable
from inspect import signature
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import damm

from app.domain.number import NumberGenerator, grouped, is_well_formed

DIGITS = st.integers(min_value=11, max_value=18)
SHARD = st.integers(min_value=0, max_value=999)


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


def test_twelve_digits_leave_ninety_million_possibilities_to_a_guesser() -> None:
    """What the threat model counts with."""
    assert NumberGenerator(12).possibilities == 90_000_000


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
        "48210937552x",
        "\u0664" * 12,
        "\u00b2" * 12,
        "-48210937552",
        "4821 0937 55",
    ],
)
def test_what_cannot_have_been_drawn_is_not_well_formed(text: str) -> None:
    """Letters, signs, digits of other scripts, too few digits."""
    assert not is_well_formed(text, 12)


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
    generator = NumberGenerator(12, lambda _: next(source) // 2)
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
def test_a_person_sees_groups_of_four(number: str) -> None:
    """Only the last group may be shorter, and nothing but spaces is added."""
    *full, last = grouped(number).split(" ")
    assert all(len(group) == 4 for group in full)
    assert 1 <= len(last) <= 4
    assert "".join([*full, last]) == number


def test_twelve_digits_are_shown_as_three_groups() -> None:
    """The form that the mail and the docs show."""
    assert grouped("482109375523") == "4821 0937 5523"
