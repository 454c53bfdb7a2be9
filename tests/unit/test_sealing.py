"""Sealing: what stands in Redis can be read with the key, for its user, and in no other way."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import SealBroken
from app.repositories.records import Sealer

OLD = "the secret of last year, long enough"
NEW = "the secret of this year, long enough"
USER = "a" * 26


@given(st.binary(max_size=5000))
def test_a_seal_opens_to_what_was_sealed_and_costs_29_bytes(text: bytes) -> None:
    """A byte for the key, 12 for the nonce, 16 for the tag."""
    sealer = Sealer([NEW])
    seal = sealer.seal(text, USER)
    assert sealer.open(seal, USER) == text
    assert len(seal) == len(text) + 29


def test_nothing_of_the_text_shows_in_the_seal() -> None:
    """The point of it all."""
    seal = Sealer([NEW]).seal(b"ada@example.com", USER)
    assert b"ada" not in seal
    assert b"example" not in seal


def test_the_same_text_never_gives_the_same_seal() -> None:
    """A fresh nonce each time: equal tokens cannot be told from different ones."""
    sealer = Sealer([NEW])
    assert len({sealer.seal(b"token", USER) for _ in range(100)}) == 100


def test_a_record_under_another_users_id_does_not_open() -> None:
    """Who can write into Redis still cannot have one person's token handed out to another."""
    sealer = Sealer([NEW])
    with pytest.raises(SealBroken):
        sealer.open(sealer.seal(b"text", USER), "b" * 26)


@given(st.integers(min_value=0, max_value=28 + len("text")), st.integers(min_value=1, max_value=255))
def test_a_changed_bit_is_noticed(place: int, change: int) -> None:
    """Wherever it is: in the key byte, the nonce, the text or the tag."""
    seal = bytearray(Sealer([NEW]).seal(b"text", USER))
    seal[place] ^= change
    with pytest.raises(SealBroken):
        Sealer([NEW]).open(bytes(seal), USER)


@pytest.mark.parametrize("seal", [b"", b"\1", b"\0", b"\1" * 13, b"\xff" * 29])
def test_what_is_no_seal_does_not_open(seal: bytes) -> None:
    """Cut off, empty or never sealed."""
    with pytest.raises(SealBroken):
        Sealer([NEW]).open(seal, USER)


def test_a_fallback_opens_what_the_old_key_sealed() -> None:
    """The rotation of a key loses nothing."""
    seal = Sealer([OLD]).seal(b"text", USER)
    assert Sealer([NEW, OLD]).open(seal, USER) == b"text"


def test_a_fallback_never_seals() -> None:
    """What is written after the rotation opens with the new key alone."""
    seal = Sealer([NEW, OLD]).seal(b"text", USER)
    assert Sealer([NEW]).open(seal, USER) == b"text"
    with pytest.raises(SealBroken):
        Sealer([OLD]).open(seal, USER)


def test_the_first_byte_tells_the_key() -> None:
    """So a sealer with fallbacks seldom tries in vain, and one key's seals can be counted."""
    first_bytes = {Sealer([OLD]).seal(b"text", USER)[0] for _ in range(50)}
    assert len(first_bytes) == 1
    assert first_bytes != {Sealer([NEW]).seal(b"text", USER)[0]}
    assert 0 not in first_bytes


def test_two_keys_with_the_same_first_byte_still_open() -> None:
    """A byte has 255 values: sooner or later a new key shares the old one's."""
    seal = Sealer([OLD]).seal(b"text", USER)
    twins = (key for key in map("key {}".format, count()) if Sealer([key]).seal(b"", USER)[0] == seal[0])
    assert Sealer([next(twins), OLD]).open(seal, USER) == b"text"


def test_without_a_key_everything_is_stored_in_clear_and_marked_so() -> None:
    """The zero byte keeps clear and sealed records apart."""
    sealer = Sealer([])
    assert not sealer.seals
    assert sealer.seal(b"text", USER) == b"\0text"
    assert sealer.open(b"\0text", USER) == b"text"


def test_a_process_with_a_key_takes_nothing_that_lies_in_clear() -> None:
    """Otherwise who can write into Redis could put any record there."""
    with pytest.raises(SealBroken):
        Sealer([NEW]).open(Sealer([]).seal(b"text", USER), USER)


def test_a_process_without_a_key_cannot_open_seals() -> None:
    """It says so instead of handing out rubbish."""
    with pytest.raises(SealBroken):
        Sealer([]).open(Sealer([NEW]).seal(b"text", USER), USER)
