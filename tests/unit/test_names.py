"""Names: of users and numbers, and the keys that they have in Redis."""

import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from app.repositories.keys import Names, UserKeys, derive_key, keys_of, outbox_key

KEY = "an index key that is long enough to be one"
OTHER_KEY = "another index key, also long enough to be one"
USER_ID = re.compile("[a-z2-7]{26}")


def keys_in_redis(keys: UserKeys, number_digest: str) -> list[str]:
    """Every key that one registration can have."""
    return [keys.user, keys.sender, keys.outbox, keys.number_prefix + number_digest]


@given(st.text())
def test_a_user_id_is_26_characters_of_base32(identity: str) -> None:
    """What the route `/api/users/<id>` matches; so `verify` is never a user."""
    assert USER_ID.fullmatch(Names(KEY).user(identity).user_id)
    assert USER_ID.fullmatch(Names(None).user(identity).user_id)


def test_the_same_address_is_always_the_same_user() -> None:
    """Also in another process, on another machine, next year: the values are part of the data layout."""
    assert Names(None).user("ada@example.com").user_id == "5adbru3bunbeprekvwvb7qnwzs"
    assert Names(KEY).user("ada@example.com").user_id == "yeakaornzq2q2tbq6n756u5fcb"
    assert Names(KEY).user("ada@example.com").shard == 359


def test_every_index_key_gives_other_names() -> None:
    """Who does not know the key can neither read nor guess a name."""
    namers = [Names(None), Names(KEY), Names(OTHER_KEY)]
    assert len({names.user("ada@example.com").user_id for names in namers}) == 3
    assert len({names.number("482109375526") for names in namers}) == 3
    assert len({names.check_value() for names in namers}) == 3


def test_a_user_and_a_number_of_the_same_text_have_different_names() -> None:
    """Each kind of name is a function of its own."""
    names = Names(KEY)
    assert not names.user("482109375526").user_id.startswith(names.number("482109375526"))


def test_each_purpose_has_its_own_key() -> None:
    """A digest that leaked would say nothing about a seal."""
    assert derive_key(KEY, "seal") != derive_key(KEY, "index")
    assert len(derive_key(KEY, "seal")) == 32


@given(st.text())
def test_all_keys_of_a_registration_lie_in_one_cluster_slot(identity: str) -> None:
    """One script can then decide everything, on a laptop and on a cluster alike."""
    keys = Names(KEY).user(identity)
    slots = {key_slot(key.encode()) for key in keys_in_redis(keys, Names(KEY).number("482109375526"))}
    assert len(slots) == 1


@given(st.text())
def test_every_key_begins_with_the_shard_in_three_digits(identity: str) -> None:
    """The hash tag, which the number shows too."""
    keys = Names(KEY).user(identity)
    assert 0 <= keys.shard <= 999
    for key in keys_in_redis(keys, Names(KEY).number("482109375526")):
        assert key.startswith(f"{{{keys.shard:03}}}:")
    assert keys.outbox == outbox_key(keys.shard)


def test_a_user_id_alone_leads_to_its_keys() -> None:
    """An outbox entry holds nothing else."""
    keys = Names(KEY).user("ada@example.com")
    assert keys_of(keys.user_id) == keys


def test_addresses_spread_evenly_over_the_shards() -> None:
    """30,000 addresses give each shard 30 on average; 70 would be seven standard deviations away."""
    names = Names(KEY)
    sizes = Counter(names.user(f"user{i}@example.com").shard for i in range(30_000))
    assert len(sizes) == 1000
    assert max(sizes.values()) < 70
