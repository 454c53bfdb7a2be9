"""Language tags: RFC 5646 and RFC 4647."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.locale import MAX_TAG_LENGTH, is_tag, look_up

subtags = st.text("abcxyzABC0189", min_size=1, max_size=9)
tags = st.lists(subtags, min_size=1, max_size=5).map("-".join)

WELL_FORMED = [
    *["de", "fr", "ja", "i-enochian", "zh-Hant", "sr-Cyrl", "zh-cmn-Hans-CN", "cmn-Hans-CN", "zh-yue-HK"],
    *["sr-Latn-RS", "sl-rozaj", "sl-rozaj-biske", "de-CH-1901", "sl-IT-nedis", "hy-Latn-IT-arevela", "de-DE"],
    *["es-419", "de-CH-x-phonebk", "x-whatever", "az-Arab-x-AZE-derbend", "qaa-Qaaa-QM-x-southern"],
    *["en-US-u-islamcal", "zh-CN-a-myext-x-private", "en-a-myext-b-another"],
    *["art-lojban", "zh-min-nan", "sgn-BE-FR", "en-GB-oed"],
]
"""RFC 5646 appendix A, and grandfathered tags."""

ILL_FORMED = [
    "",
    "-",
    "e",
    "de-",
    "-de",
    "de--CH",
    "de_DE",
    "a-DE",
    "de-419-DE",
    "en-x",
    "en-u",
    "x-",
    "i-nobody",
    "abcdefghi",
    "en-abcdefghi",
    "de\n",
    "\uff44\uff45",
    "dé",
    "e\u0131",
    "es-٤١٩",
    "en-" + "-".join(["abcdefgh"] * 4),
]


@pytest.mark.parametrize("tag", WELL_FORMED)
def test_what_the_standard_calls_a_tag_is_one(tag: str) -> None:
    """In any case."""
    assert is_tag(tag)
    assert is_tag(tag.lower())
    assert is_tag(tag.upper())


@pytest.mark.parametrize("text", ILL_FORMED)
def test_what_is_no_tag_is_refused(text: str) -> None:
    """The syntax, ASCII alone, and 35 characters."""
    assert not is_tag(text)


@given(text=st.text(max_size=40) | tags)
def test_a_tag_is_short_ascii(text: str) -> None:
    """Whatever is asked."""
    if is_tag(text):
        assert text.isascii()
        assert 2 <= len(text) <= MAX_TAG_LENGTH
        assert all(1 <= len(subtag) <= 8 and subtag.isalnum() for subtag in text.split("-"))


@pytest.mark.parametrize(
    ("tag", "found"),
    [
        ("es-MX", "es"),
        ("zh-Hant-TW", "zh-Hant"),
        ("zh-Hans-CN", "zh"),
        ("ZH-hANT", "zh-Hant"),
        ("zh-Hant-CN-x-private1-private2", "zh-Hant"),  # RFC 4647 §3.4's own example
        ("es-x-formal", "es-X-Formal"),
        ("es-x-other", "es"),
        ("nl", None),
        ("", None),
        ("e", None),
    ],
)
def test_a_tag_loses_its_end_until_it_fits(tag: str, found: str | None) -> None:
    """RFC 4647 §3.4; a single letter goes with what it introduces."""
    assert look_up(tag, ["es", "zh", "zh-Hant", "es-X-Formal", "es-x"]) == found


@given(tag=tags, available=st.lists(tags, max_size=5))
def test_what_is_found_is_a_beginning_of_the_tag_and_the_longest(tag: str, available: list[str]) -> None:
    """Or is not found, and then none of the available is one that may be found."""
    beginnings = ["-".join(tag.lower().split("-")[:count]) for count in range(1, tag.count("-") + 2)]
    allowed = [
        each
        for number, each in enumerate(beginnings)
        if number + 1 == len(beginnings) or len(each.rpartition("-")[2]) > 1
    ]
    fitting = [each for each in available if each.lower() in allowed]
    found = look_up(tag, available)
    assert found == (max(fitting, key=len) if fitting else None)


@given(tag=tags, available=st.lists(tags, min_size=1, max_size=5))
def test_an_available_tag_is_found_in_any_case(tag: str, available: list[str]) -> None:
    """As it is spelled there."""
    found = look_up(available[0].swapcase(), available)
    assert found is not None
    assert found.lower() == available[0].lower()
    assert found in available
