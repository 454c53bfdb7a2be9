"""Idempotency-Key: one registration however often it is asked for."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import requests

from tests.api.conftest import BANK, SHOP_NEXT, Api, bearer, named
from tests.support.scan import contradictions, kinds
from tests.support.waiting import wait_until


def test_a_thousand_replays_from_32_clients_are_one_registration(
    keyed: Api, email: str, store: redis.Redis
) -> None:
    """One number, one mail; whoever is not told that it is still running gets the same answer."""

    def replay(_: int) -> requests.Response:
        return keyed.register(email, headers=named("8e03978e-40d5-43dd-bc93-6894a57f9324"))

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(replay, range(1000)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {201, 409}
    assert answers[-1].status_code == 201
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert len(keyed.mail.box.to(email)) == 1
    assert kinds(store)["number"] == kinds(store)["user"] == 1
    (sends,) = store.scan_iter("*:sends:*")
    assert store.get(sends) == b"1"
    assert contradictions(store) == []


def test_a_repetition_gets_the_same_answer_even_after_the_number_was_used(
    api: Api, email: str, store: redis.Redis
) -> None:
    """201 stays 201, 202 stays 202, byte for byte; nothing is registered again."""
    first = api.register(email, headers=named("a"))
    assert api.verify(email, api.number_of(email)).status_code == 200
    later = api.register(email, headers=named("b") | {"Prefer": "respond-async"})
    wait_until(lambda: len(api.mail.box.to(email)) == 2)
    for original, name in ((first, "a"), (later, "b")):
        again = api.register(email, headers=named(name))
        assert (again.status_code, again.content) == (original.status_code, original.content)
        assert again.headers["Location"] == original.headers["Location"]
        assert "Preference-Applied" not in again.headers
    assert (first.status_code, later.status_code) == (201, 202)
    assert later.headers["Preference-Applied"] == "respond-async"
    assert len(api.mail.box.to(email)) == 2


def test_the_key_belongs_to_the_address_the_token_and_the_locale(api: Api, email: str) -> None:
    """Another token or locale is a mistake of the client; to name none is not the same as to name one."""
    first = api.register(email, "one", headers=named("k"))
    assert api.register(email, "one", headers=named("k")).content == first.content
    for answer in (
        api.register(email, "two", headers=named("k")),
        api.register(email, "one", locale="es", headers=named("k")),
        api.register(email, "one", locale="en", headers=named("k")),
    ):
        assert answer.status_code == 422
        assert answer.json()["type"] == "/problems/idempotency-key-reused"
    assert api.register(f"un{email}", "two", headers=named("k")).status_code == 201
    assert len(api.mail.box.to(email)) == 1


def test_the_key_belongs_to_one_api_key_s_owner(keyed: Api, email: str) -> None:
    """The shop's second key repeats the shop's request; the bank's same word is another request."""
    first = keyed.register(email, headers=named("k"))
    assert keyed.register(email, headers=named("k") | bearer(SHOP_NEXT)).content == first.content
    assert len(keyed.mail.box.to(email)) == 1
    assert keyed.register(email, "other", headers=named("k") | bearer(BANK)).status_code == 201
    assert len(keyed.mail.box.to(email)) == 2


def test_a_repetition_costs_nothing_of_the_address_s_budget(keyed: Api, email: str) -> None:
    """Ten an hour are allowed: twenty repetitions are none of them, and are answered after it is used up."""
    first = keyed.register(email, headers=named("k"))
    for _ in range(20):
        assert keyed.register(email, headers=named("k")).status_code == 201
    for _ in range(9):
        assert keyed.register(email).status_code == 201
    assert keyed.register(email).status_code == 429
    assert keyed.register(email, headers=named("k")).content == first.content
    limited = keyed.register(email, headers=named("new"))
    assert limited.status_code == 429
    assert 3590 <= int(limited.headers["Retry-After"]) <= 3600


@pytest.mark.parametrize("key", ["", "\u00e9", "k" * 256, "tab\tinside"])
def test_what_is_no_key_is_refused(api: Api, email: str, key: str) -> None:
    """1 to 255 visible ASCII characters, spaces inside."""
    answer = api.register(email, headers={"Idempotency-Key": key.encode("latin-1")})
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["Idempotency-Key"]
    assert api.mail.box.to(email) == []


def test_a_mark_holds_nothing_personal_and_ends(keyed: Api, email: str, store: redis.Redis) -> None:
    """An erasure cannot find it, so there is nothing in it to erase."""
    keyed.register(email, "s3cret-token", headers=named("order-4711"))
    (key,) = store.scan_iter("*:idempotency:*")
    held = key + (store.get(key) or b"")
    for secret in (email, "s3cret-token", "order-4711", keyed.number_of(email), "shop"):
        assert secret.encode() not in held
    assert 86_390_000 < store.pttl(key) <= 86_400_000
