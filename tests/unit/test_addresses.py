"""E-mail addresses: accepted or not, the same person or not, and what stands in the envelope."""

from contextlib import suppress
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.address import Address
from app.errors import InvalidAddress

ACCEPTED = {
    "plain": ("ada@example.com", "ada@example.com", "ada@example.com"),
    "upper case": ("Ada.L@EXAMPLE.Com", "Ada.L@example.com", "Ada.L@example.com"),
    "plus tag": ("ada+shop@example.com", "ada+shop@example.com", "ada+shop@example.com"),
    "apostrophe": ("o'hara@example.ie", "o'hara@example.ie", "o'hara@example.ie"),
    "IDN": ("ada@bücher.example.com", "ada@bücher.example.com", "ada@xn--bcher-kva.example.com"),
    "IDN in upper case": ("ada@BÜCHER.de", "ada@bücher.de", "ada@xn--bcher-kva.de"),
    "IDN already in ASCII": ("ada@xn--bcher-kva.de", "ada@bücher.de", "ada@xn--bcher-kva.de"),
    "sharp s": ("ada@faß.de", "ada@faß.de", "ada@xn--fa-hia.de"),
    "a combining umlaut": ("ada@bu\u0308cher.de", "ada@bücher.de", "ada@xn--bcher-kva.de"),
    "full-width letters": ("ada@\uff45xample.com", "ada@example.com", "ada@example.com"),
    "every odd sign that an atom may hold": (
        "!#$%&'*+-/=?^_`{|}~@example.com",
        "!#$%&'*+-/=?^_`{|}~@example.com",
        "!#$%&'*+-/=?^_`{|}~@example.com",
    ),
    # RFC 5321 §4.5.3.1 names the least that a server must take: some take more than 64.
    "65 characters before the at": (f"{'a' * 65}@example.com",) * 3,
    "the longest": (
        f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 57}.com",
        f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 57}.com",
        f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 57}.com",
    ),
}

REFUSED = {
    "empty": "",
    "no at": "ada.example.com",
    "two ats": "ada@b@example.com",
    "no local part": "@example.com",
    "no domain": "ada@",
    "quoted local part": '"ada lovelace"@example.com',
    "IP literal": "ada@[127.0.0.1]",
    "display name": "Ada <ada@example.com>",
    "comment": "ada(home)@example.com",
    "group": "friends: ada@example.com;",
    "list": "ada@example.com, bob@example.com",
    "non-ASCII local part": "ädä@example.com",
    "space around": " ada@example.com",
    "space at the end": "ada@example.com ",
    "space inside": "ada lovelace@example.com",
    "line break": "ada@example.com\nBcc: bob@example.com",
    "carriage return in the local part": "ada\r\nBcc: bob@example.com",
    "dot at the start": ".ada@example.com",
    "dot before the at": "ada.@example.com",
    "two dots": "ada..l@example.com",
    "dot at the end of the domain": "ada@example.com.",
    "hyphen at the start of a label": "ada@-example.com",
    "domain without a dot": "ada@example",
    "localhost": "ada@localhost",
    "a special-use domain": "ada@service.invalid",
    "underscore in the domain": "ada@exa_mple.com",
    "255 characters": f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 58}.com",
    "254 characters, more in ASCII": f"{'a' * 64}@{'ü' * 30}.{'ü' * 30}.{'d' * 60}.{'e' * 60}.com",
    "punycode that is none": "ada@xn--a.com",
    "a lone surrogate": "ada\ud800@example.com",
    "NUL": "ada\0@example.com",
    "an emoji domain": "ada@💌.com",
}


@pytest.mark.parametrize(("text", "email", "envelope"), ACCEPTED.values(), ids=ACCEPTED)
def test_an_address_is_accepted_and_its_domain_normalised(text: str, email: str, envelope: str) -> None:
    """Answers show `email`; mail goes to `envelope`, whose local part is as it was given."""
    address = Address.parse(text)
    assert address.email == email
    assert address.envelope == envelope
    assert address.identity == envelope.lower()


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_is_no_address_is_refused_without_being_repeated(text: str) -> None:
    """The reason goes into an answer and perhaps a log: it must not carry what somebody typed."""
    with pytest.raises(InvalidAddress) as refusal:
        Address.parse(text)
    assert not text.strip() or text not in str(refusal.value)


def test_addresses_that_differ_in_case_only_are_one_person() -> None:
    """No mail service of today tells `Ada` from `ada`."""
    assert Address.parse("ADA@Example.COM").identity == Address.parse("ada@example.com").identity


def test_sharp_s_is_not_double_s() -> None:
    """IDNA 2003 would send the number of `faß.de` to the owner of `fass.de`."""
    assert Address.parse("ada@faß.de").identity != Address.parse("ada@fass.de").identity


def test_a_plus_tag_makes_another_person() -> None:
    """Only the mail service knows whether tags are one mailbox."""
    assert Address.parse("ada+a@example.com").identity != Address.parse("ada@example.com").identity


@given(st.emails())
def test_what_is_stored_is_read_back_as_the_same_address(text: str) -> None:
    """A record keeps `email` and is parsed again when its mail is sent later."""
    try:
        address = Address.parse(text)
    except InvalidAddress:
        return
    assert Address.parse(address.email) == address
    assert address.envelope.isascii()


@given(st.text(max_size=300))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    """Nothing but InvalidAddress ever comes out."""
    with suppress(InvalidAddress):
        Address.parse(text)


def test_a_domain_is_read_once() -> None:
    """Reading one is most of the work; whoever updates the library must see when its memory is lost."""
    memory: Any = import_module("email_validator.validate_email").validate_email_domain_name
    before = memory.cache_info()
    for name in ("ada", "bob", "eve"):
        Address.parse(f"{name}@read-once.example.com")
    after = memory.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 2)
