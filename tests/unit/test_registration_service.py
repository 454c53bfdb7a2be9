"""The registration service: how often it draws, when it gives up, and what it asks first."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import fakeredis
import pytest

from app.domain.address import Address
from app.domain.number import NumberGenerator
from app.domain.registration import Budget, Draft, Registration, Stored
from app.errors import NumberSpaceExhausted, WrongIndexKey
from app.repositories.guard import Guard
from app.repositories.keys import Names, UserKeys
from app.repositories.sealing import Sealer
from app.repositories.users import Terms, Users
from app.services.messaging import SendPlan
from app.services.registration import (
    ALL_FREE,
    FIRST_CANDIDATES,
    MAX_CALLS,
    MORE_CANDIDATES,
    RegistrationService,
)
from tests.support.storage import FakeStorage

ADA = Draft(Address.parse("ada@example.com"), "t0ken", "en")
BOB = Draft(Address.parse("bob@example.com"), "t0ken", "en")
TERMS = Terms(life_ms=0, budget=Budget(), mark_ms=0)
PLAN = SendPlan(lease_ms=25_000)


class FullUpTo(Users):
    """Users in a shard where so many calls find every candidate taken."""

    def __init__(self, client: fakeredis.FakeRedis, failing_calls: int) -> None:
        super().__init__(FakeStorage(client), Names(None), Sealer([]))
        self.failing_calls = failing_calls
        self.candidates: list[int] = []

    def register(
        self, keys: UserKeys, draft: Draft, candidates: Sequence[str], *rest: Any, **more: Any
    ) -> Any:
        self.candidates.append(len(candidates))
        if len(self.candidates) <= self.failing_calls:
            return None
        return super().register(keys, draft, candidates, *rest, **more)


@pytest.fixture
def fake_redis() -> Iterator[fakeredis.FakeRedis]:
    """A Redis of this test's own, inside the process."""
    client = fakeredis.FakeRedis()
    yield client
    client.close()


def service(
    client: fakeredis.FakeRedis, users: Users, randbelow: Callable[[int], int]
) -> RegistrationService:
    """The service as the container builds it, with its numbers from the given source."""
    guard = Guard(FakeStorage(client), Names(None), Sealer([]))
    return RegistrationService(users, guard, NumberGenerator(12, randbelow), TERMS)


def registered(outcome: Any) -> Registration:
    """The registration that came out."""
    assert isinstance(outcome, Stored)
    return outcome.registration


def test_a_registration_gets_a_number_of_its_own_shard(fake_redis: fakeredis.FakeRedis) -> None:
    """The usual case: one call, and the first candidate."""
    users = FullUpTo(fake_redis, failing_calls=0)
    registration = registered(service(fake_redis, users, lambda _: 5).register(ADA, PLAN))
    assert registration.number.startswith("10000005")
    assert int(registration.number[-4:-1]) == users.keys(ADA.address).shard
    assert users.candidates == [1]  # the source repeats itself, and repeats are not tried


def test_one_candidate_is_enough_while_every_first_one_is_free(fake_redis: fakeredis.FakeRedis) -> None:
    """Until one is taken: then a few are drawn again."""
    draws = count()
    users = FullUpTo(fake_redis, failing_calls=0)
    registrations = service(fake_redis, users, lambda _: next(draws))
    for _ in range(ALL_FREE + 2):
        registrations.register(ADA, PLAN)
    assert users.candidates == [FIRST_CANDIDATES] * ALL_FREE + [1, 1]
    users.failing_calls = len(users.candidates) + 1
    registrations.register(ADA, PLAN)
    registrations.register(ADA, PLAN)
    assert users.candidates[-3:] == [1, MORE_CANDIDATES, FIRST_CANDIDATES]


def test_it_draws_again_while_every_candidate_is_taken(fake_redis: fakeredis.FakeRedis) -> None:
    """The loop of the diagram: a few candidates first, then many."""
    source = count()
    users = FullUpTo(fake_redis, failing_calls=3)
    registration = registered(service(fake_redis, users, lambda _: next(source)).register(ADA, PLAN))
    assert users.candidates == [FIRST_CANDIDATES] + [MORE_CANDIDATES] * 3
    assert registration.number.startswith(str(10_000_000 + FIRST_CANDIDATES + 2 * MORE_CANDIDATES))


def test_it_gives_up_within_its_bound(fake_redis: fakeredis.FakeRedis) -> None:
    """A full shard must cost a request milliseconds, not for ever."""
    source = count()
    users = FullUpTo(fake_redis, failing_calls=MAX_CALLS)
    with pytest.raises(NumberSpaceExhausted):
        service(fake_redis, users, lambda _: next(source)).register(ADA, PLAN)
    assert users.candidates == [FIRST_CANDIDATES] + [MORE_CANDIDATES] * (MAX_CALLS - 1)


def test_the_last_call_of_the_bound_still_counts(fake_redis: fakeredis.FakeRedis) -> None:
    """The bound is on calls, not on failures."""
    source = count()
    users = FullUpTo(fake_redis, failing_calls=MAX_CALLS - 1)
    registered(service(fake_redis, users, lambda _: next(source)).register(ADA, PLAN))


def test_a_number_that_another_address_holds_is_passed_over(fake_redis: fakeredis.FakeRedis) -> None:
    """With a real script: two neighbours of one shard, one source that starts over."""
    users = FullUpTo(fake_redis, failing_calls=0)
    draws = iter([7, 7, 7, 7, 7, 7, 7, 8])
    shard = users.keys(ADA.address).shard
    neighbour = next(
        draft
        for draft in (Draft(Address.parse(f"n{i}@example.com"), "t", "en") for i in count())
        if users.keys(draft.address).shard == shard
    )
    registrations = service(fake_redis, users, lambda _: next(draws))
    first = registered(registrations.register(ADA, PLAN))
    second = registered(registrations.register(neighbour, PLAN))
    assert first.number[:8] == "10000007"
    assert second.number[:8] == "10000008"


def test_registering_again_gives_another_number_and_frees_the_old_one(
    fake_redis: fakeredis.FakeRedis,
) -> None:
    """Steps 4 to 6 of the diagram."""
    source = count()
    users = FullUpTo(fake_redis, failing_calls=0)
    registrations = service(fake_redis, users, lambda _: next(source))
    first, second = (registered(registrations.register(ADA, PLAN)) for _ in range(2))
    assert first.user_id == second.user_id
    assert first.number != second.number
    assert first.registration_id != second.registration_id
    live = users.keys(ADA.address).number_prefix + Names(None).number(second.number)
    assert [key.decode() for key in fake_redis.keys("*:number:*")] == [live]


def test_nothing_is_registered_in_the_data_of_another_key(fake_redis: fakeredis.FakeRedis) -> None:
    """The guard is asked before the first write."""
    Guard(FakeStorage(fake_redis), Names("an index key of another service, a long one"), Sealer([])).check()
    users = FullUpTo(fake_redis, failing_calls=0)
    with pytest.raises(WrongIndexKey):
        service(fake_redis, users, lambda _: 0).register(BOB, PLAN)
    assert users.candidates == []
