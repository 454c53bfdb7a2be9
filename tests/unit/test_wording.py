"""Durations, times and colours: what a person reads, and can read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.mail.colors import DARK_GROUND, LIGHT_GROUND, READABLE, accent, contrast
from app.mail.wording import duration, moment
from tests.support.mails import LANGUAGES

SECONDS = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}
NOW_S = 1_700_000_000


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (600_000, "10 minutes"),
        (598_200, "10 minutes"),
        (590_000, "9 minutes"),
        (86_398_000, "24 hours"),
        (90_000, "90 seconds"),
        (120_000, "2 minutes"),
        (119_900, "2 minutes"),
        (7_199_000, "2 hours"),
        (172_800_000, "2 days"),
        (110_000, "110 seconds"),
        (3_650 * 86_400_000, "3650 days"),
        (1_000, "1 second"),
        (10, "1 second"),
        (0, "1 second"),
        (-5, "1 second"),
    ],
)
def test_a_duration_is_rounded_to_what_a_person_says(ms: int, words: str) -> None:
    """In the largest unit of which there are two."""
    assert duration("en", ms).replace("\u00a0", " ") == words


@given(ms=st.integers(1000, 10 * 365 * 86_400_000))
def test_a_duration_never_claims_more_than_a_hundredth_too_much(ms: int) -> None:
    """Nor less than half of what there is."""
    count, unit = duration("en", ms).split("\u00a0")
    claimed_ms = int(count) * SECONDS[unit.rstrip("s")] * 1000
    assert ms / 2 < claimed_ms <= ms * 1.01


@pytest.mark.parametrize("language", [*LANGUAGES, "nl", "he", "ja", "zh-Hant", "pt-PT", "es-x-formal"])
@pytest.mark.parametrize("ms", [3_000, 180_000, 10_800_000, 259_200_000])
def test_every_unit_has_its_word_in_every_language(language: str, ms: int) -> None:
    """Babel's `format_unit` says `3 duration-day` in some."""
    words = duration(language, ms)
    assert "3" in words
    assert "duration" not in words
    assert " " not in words  # no line ends inside


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "November 14, 2023, 10:13\u202fPM UTC"),
        ("es", "14 de noviembre de 2023, 22:13 UTC"),
        ("de", "14. November 2023, 22:13 UTC"),
        ("fr", "14 novembre 2023, 22:13 UTC"),
        ("ar", "14 نوفمبر 2023، 10:13 م UTC"),
    ],
)
def test_a_time_is_told_as_the_language_tells_it(language: str, words: str) -> None:
    """To the minute, in UTC."""
    assert moment(language, NOW_S) == words


@given(color=st.from_regex("#[0-9a-f]{6}", fullmatch=True))
def test_every_colour_can_be_read_on_both_grounds(color: str) -> None:
    """WCAG 2.2: 4.5 to 1. One that can be read already stays."""
    found = accent(color)
    assert contrast(found.light, LIGHT_GROUND) >= READABLE
    assert contrast(found.dark, DARK_GROUND) >= READABLE
    if contrast(color, LIGHT_GROUND) >= READABLE:
        assert found.light == color
    if contrast(color, DARK_GROUND) >= READABLE:
        assert found.dark == color


def test_black_and_white_are_twenty_one_apart() -> None:
    """As the standard reckons."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
