"""Tags: each names one mail, and nobody else can make one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import checks
from app.domain.registration import Registration
from app.domain.report import TAG, TAG_LENGTH, Tag
from app.repositories.keys import BASE32
from app.repositories.tags import DAY_S, Tags
from tests.support.mails import REGISTRATION

NOW_S = REGISTRATION.asked_for_ms / 1000
TAGS = Tags("i" * 32)


def test_a_tag_tells_its_mail() -> None:
    """In the case in which it comes back, and without naming the address."""
    tag = TAGS.make(REGISTRATION._replace(resends=1023))
    assert TAG.fullmatch(tag)
    for text in (tag, tag.upper()):
        assert TAGS.read(text, NOW_S) == Tag(REGISTRATION.user_id, "0123456789", 1023)


def test_each_mail_has_its_own_tag_and_each_attempt_at_it_the_same() -> None:
    """A resend is another mail; so is another registration of the address."""
    mails = [
        REGISTRATION,
        REGISTRATION._replace(resends=1),
        REGISTRATION._replace(registration_id="1" + REGISTRATION.registration_id[1:]),
        REGISTRATION._replace(user_id="b" * 26),
    ]
    assert len({TAGS.make(mail) for mail in mails}) == len(mails)
    assert TAGS.make(REGISTRATION) == TAGS.make(REGISTRATION._replace(attempts=3, left_ms=1))


def test_the_address_with_a_tag_is_as_long_as_the_setting_reckons() -> None:
    """RFC 5321: 64 octets."""
    assert len(TAGS.make(REGISTRATION)) == TAG_LENGTH
    checks.bounce_address("a" * (64 - 1 - TAG_LENGTH) + "@acme.example")


@pytest.mark.parametrize(("days", "good"), [(-2, False), (-1, True), (0, True), (30, True), (31, False)])
def test_a_tag_is_good_for_thirty_days(days: int, good: bool) -> None:
    """And not in the future, but for clocks that differ around midnight."""
    tag = TAGS.make(REGISTRATION)
    assert (TAGS.read(tag, NOW_S + days * DAY_S) is not None) == good


@pytest.mark.parametrize("letter", ["\u017f", "\u0131", "\u212a"])
def test_a_letter_that_only_looks_like_one_of_a_tag_makes_none(letter: str) -> None:
    """Where case does not matter, a long s is an s to Python, and Kelvin's sign a k."""
    assert not TAG.findall(letter * TAG_LENGTH)
    assert TAGS.read(letter * TAG_LENGTH, NOW_S) is None


def test_without_an_index_key_no_tag_is_good() -> None:
    """Anybody could make it."""
    assert Tags(None).read(Tags(None).make(REGISTRATION), NOW_S) is None
    assert Tags("j" * 32).read(TAGS.make(REGISTRATION), NOW_S) is None


@given(place=st.integers(0, TAG_LENGTH - 1), other=st.sampled_from(BASE32))
def test_a_tag_that_was_changed_is_not_good(place: int, other: str) -> None:
    """In whichever character."""
    tag = TAGS.make(REGISTRATION)
    changed = tag[:place] + other + tag[place + 1 :]
    assert (TAGS.read(changed, NOW_S) is not None) == (changed == tag)


@given(text=st.text(max_size=60) | st.text(BASE32, min_size=52, max_size=52))
def test_no_other_text_is_a_tag(text: str) -> None:
    """And none makes it fail."""
    assert TAGS.read(text, NOW_S) is None


@given(
    user_id=st.text(BASE32, min_size=26, max_size=26),
    registration_id=st.text("0123456789abcdef", min_size=16, max_size=16),
    resends=st.integers(0, 1023),
    day=st.integers(10_000, 32_000),
)
def test_whatever_the_mail_its_tag_tells_it(
    user_id: str, registration_id: str, resends: int, day: int
) -> None:
    """40 bits of the registration's id."""
    registration: Registration = REGISTRATION._replace(
        user_id=user_id, registration_id=registration_id, resends=resends, asked_for_ms=day * DAY_S * 1000
    )
    found = TAGS.read(TAGS.make(registration), day * DAY_S)
    assert found == Tag(user_id, registration_id[:10], resends)
