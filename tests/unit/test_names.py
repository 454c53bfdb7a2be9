"""Names: of users and numbers, and the keys that they have in Redis."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from app.domain.address import Address
from app.domain.registration import USER_ID
from app.repositories.keys import Names, UserKeys, derive_key, keys_of, shard_keys

KEY = "an index key that is long enough to be one"
OTHER_KEY = "another index key, also long enough to be one"
NUMBER = "4821093753"
ADA = Address.parse("ada@example.com")

ADDRESSES = st.from_regex(r"[a-z]{1,12}(\+[a-z]{1,5})?@[a-z]{1,12}\.com", fullmatch=True).map(Address.known)
SERVICES = st.from_regex("[a-z][a-z0-9-]{0,31}", fullmatch=True)


def keys_in_redis(names: Names, keys: UserKeys, address: Address) -> list[str]:
    """Every key that one registration can have."""
    return [
        keys.user,
        keys.sender,
        keys.outbox,
        keys.sends,
        keys.tries,
        keys.verified,
        keys.mailbox(names.mailbox(address)),
        keys.idempotency(names.request("", keys.user_id, "order-4711")),
        keys.number_prefix + names.number(NUMBER),
    ]


@given(SERVICES, ADDRESSES)
def test_a_user_id_is_26_characters_of_base32(service: str, address: Address) -> None:
    """What the route `/api/users/<id>` matches; so `verify` is never a user."""
    assert re.fullmatch(USER_ID, Names(KEY).user(service, address).user_id)
    assert re.fullmatch(USER_ID, Names(None).user(service, address).user_id)


def test_the_same_address_of_the_same_service_is_always_the_same_user() -> None:
    """Also in another process, on another machine, next year: the values are part of the data layout."""
    assert Names(None).user("default", ADA).user_id == "otv4jmjxjiygi723yyeba25toj"
    assert Names(KEY).user("default", ADA).user_id == "477ppvx335pqplgbe4cq5cgnsr"
    assert Names(KEY).user("default", ADA).shard == 927
    assert Names(KEY).user("shop", ADA).user_id == "47o6txwxha7zyfhiv4sub4yit3"
    assert Names(KEY).mailbox(ADA) == "8e5bf9b43683b55d58163a44"


@given(SERVICES, SERVICES, ADDRESSES)
def test_users_of_one_mailbox_lie_in_one_shard_and_share_nothing_else(
    first: str, second: str, address: Address
) -> None:
    """Whichever service they belong to: then one script decides about the mailbox's budget."""
    ours, theirs = Names(KEY).user(first, address), Names(KEY).user(second, address)
    assert ours.shard == theirs.shard
    assert (ours.user_id == theirs.user_id) == (first == second)
    assert (ours.user_id[2:] == theirs.user_id[2:]) == (first == second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ada@example.com", "ada+shop@example.com"),
        ("ada@example.com", "ADA@EXAMPLE.com"),
        ("adalovelace@gmail.com", "ada.love.lace+x@googlemail.com"),
    ],
)
def test_spellings_of_one_mailbox_share_its_shard_and_its_budget(first: str, second: str) -> None:
    """A `+tag`, and the dots at Gmail: most likely one person, and certainly one mailbox to protect."""
    names = Names(KEY)
    one, other = Address.parse(first), Address.parse(second)
    assert names.mailbox(one) == names.mailbox(other)
    assert names.user("default", one).shard == names.user("default", other).shard


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ada@example.com", "ad.a@example.com"),
        ("ada@gmail.com", "ada@example.com"),
        ("+ada@example.com", "+bob@example.com"),
        ("ada@example.com", "ada@example.org"),
    ],
)
def test_other_mailboxes_have_budgets_of_their_own(first: str, second: str) -> None:
    """Dots count where they are not known to be ignored; an address that is nothing but a tag is itself."""
    names = Names(KEY)
    assert names.mailbox(Address.parse(first)) != names.mailbox(Address.parse(second))


def test_every_index_key_gives_other_names() -> None:
    """Who does not know the key can neither read nor guess a name."""
    namers = [Names(None), Names(KEY), Names(OTHER_KEY)]
    assert len({names.user("default", ADA).user_id for names in namers}) == 3
    assert len({names.mailbox(ADA) for names in namers}) == 3
    assert len({names.number(NUMBER) for names in namers}) == 3
    assert len({names.verification(NUMBER, "k") for names in namers}) == 3
    assert len({names.check_value() for names in namers}) == 3


def test_each_kind_of_name_is_a_function_of_its_own() -> None:
    """Names of the same text have nothing in common."""
    names = Names(KEY)
    text = "x"
    found = {
        names.mailbox(Address(text, text))[:8],
        names.client(text)[:8],
        names.number(text)[:8],
        names.fingerprint(text, "")[:8],
        names.verification(text, "")[:8],
        names.request(text, "", "")[:8],
    }
    assert len(found) == 6


def test_each_purpose_has_its_own_key() -> None:
    """A digest that leaked would say nothing about a seal."""
    assert derive_key(KEY, "seal") != derive_key(KEY, "index")
    assert len(derive_key(KEY, "seal")) == 32


@given(SERVICES, ADDRESSES)
def test_all_keys_of_a_registration_lie_in_one_cluster_slot(service: str, address: Address) -> None:
    """One script can then decide everything, on a laptop and on a cluster alike."""
    names = Names(KEY)
    keys = keys_in_redis(names, names.user(service, address), address)
    assert len({key_slot(key.encode()) for key in keys}) == 1


@given(SERVICES, ADDRESSES)
def test_every_key_begins_with_the_shard_in_three_digits(service: str, address: Address) -> None:
    """The hash tag, which the number shows too."""
    names = Names(KEY)
    keys = names.user(service, address)
    assert 0 <= keys.shard <= 999
    for key in keys_in_redis(names, keys, address):
        assert key.startswith(f"{{{keys.shard:03}}}:")
    assert keys.outbox == shard_keys(keys.shard).outbox


@given(SERVICES, ADDRESSES)
def test_a_user_id_alone_leads_to_its_keys(service: str, address: Address) -> None:
    """An outbox entry holds nothing else, and whoever looks a user up needs no key for it."""
    keys = Names(KEY).user(service, address)
    keys_of.cache_clear()
    assert vars(keys_of(keys.user_id)) == vars(keys)


def test_addresses_spread_evenly_over_the_shards() -> None:
    """30,000 addresses give each shard 30 on average; 70 would be seven standard deviations away."""
    names = Names(KEY)
    sizes = Counter(names.user("default", Address.known(f"user{i}@example.com")).shard for i in range(30_000))
    assert len(sizes) == 1000
    assert max(sizes.values()) < 70
