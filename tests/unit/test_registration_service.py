"""The registration service: how often it draws, when it gives up, and what it asks first."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, cast

import fakeredis
import pytest

from app.domain.address import Address
from app.domain.number import NumberGenerator
from app.domain.registration import Cause, Delivery, Draft, Registration, Stored
from app.domain.service import Service
from app.errors import AddressRefused, CedulaError, NumberSpaceExhausted, StorageUnavailable, WrongIndexKey
from app.repositories.guard import Guard
from app.repositories.keys import Names, UserKeys
from app.repositories.records import Sealer
from app.repositories.users import Users
from app.services.messaging import MessagingService, SendPlan
from app.services.registration import (
    ALL_FREE,
    FIRST_CANDIDATES,
    MAX_CALLS,
    MORE_CANDIDATES,
    RegistrationService,
)
from app.telemetry.metrics import Metrics
from tests.support.people import DIGITS
from tests.support.storage import FakeStorage
from tests.support.values import text

ADA = Draft(Address.parse("ada@example.com"), "t0ken", "en", Service())
BOB = Draft(Address.parse("bob@example.com"), "t0ken", "en", Service())
LEASE_MS = 25_000
NO_MAIL = cast(MessagingService, None)
"""For tests that store and do not mail."""


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
    return RegistrationService(users, guard, NumberGenerator(DIGITS, randbelow), NO_MAIL, Metrics())


class FakeMessaging:
    """Mails nothing; answers as it is told, and remembers what it was asked."""

    def __init__(self, answer: Delivery | CedulaError = Delivery.SENT, lease_ms: int = LEASE_MS) -> None:
        self.answer = answer
        self.lease_ms = lease_ms
        self.sent: list[tuple[Stored, SendPlan, Cause]] = []

    def plan(self, *, awaited: bool = True, test: bool = False) -> SendPlan:
        return SendPlan(self.lease_ms, awaited=awaited)

    def send(self, stored: Stored, plan: SendPlan, cause: Cause) -> Delivery:
        self.sent.append((stored, plan, cause))
        if isinstance(self.answer, CedulaError):
            raise self.answer
        return self.answer


def registering(
    client: fakeredis.FakeRedis, messaging: FakeMessaging, mark_ms: int = 60_000
) -> RegistrationService:
    """The service with a messaging service that mails nothing."""
    users = Users(FakeStorage(client), Names(None), Sealer([]), mark_ms)
    guard = Guard(FakeStorage(client), Names(None), Sealer([]))
    mailing = cast(MessagingService, messaging)
    return RegistrationService(users, guard, NumberGenerator(DIGITS), mailing, Metrics())


def test_registering_stores_and_mails_with_the_lease_that_messaging_planned(
    fake_redis: fakeredis.FakeRedis,
) -> None:
    """Who asked goes with the mail; the answer is the mail server's."""
    messaging = FakeMessaging(Delivery.PENDING)
    cause = Cause("request", "shop")
    answer = registering(fake_redis, messaging).register(ADA, cause, awaited=False)
    ((stored, plan, told),) = messaging.sent
    assert (answer.user_id, answer.created_ms) == (
        stored.registration.user_id,
        stored.registration.asked_for_ms,
    )
    assert answer.delivery is Delivery.PENDING
    assert (stored.owner is not None, plan.awaited, told) == (True, False, cause)


def test_no_lease_is_taken_where_messaging_does_not_begin(fake_redis: fakeredis.FakeRedis) -> None:
    """The breaker is open, or too many mails wait."""
    messaging = FakeMessaging(Delivery.PENDING, lease_ms=0)
    registering(fake_redis, messaging).register(ADA, Cause())
    assert messaging.sent[0][0].owner is None


def test_a_repeated_key_gives_the_answer_of_then_and_mails_nothing(fake_redis: fakeredis.FakeRedis) -> None:
    """The same caller and the same key; another caller's key is another."""
    messaging = FakeMessaging()
    registrations = registering(fake_redis, messaging)
    first = registrations.register(ADA, Cause("1", "shop"), idempotency_key="k")
    messaging.answer = Delivery.PENDING
    assert registrations.register(ADA, Cause("2", "shop"), idempotency_key="k") == first
    assert len(messaging.sent) == 1
    assert registrations.register(ADA, Cause("3", "bank"), idempotency_key="k") != first


@pytest.mark.parametrize("error", [AddressRefused("x"), StorageUnavailable("x")])
def test_a_registration_that_came_to_nothing_is_carried_out_anew_when_it_is_repeated(
    error: CedulaError, fake_redis: fakeredis.FakeRedis
) -> None:
    """No answer is kept, so that the repetition need not wait."""
    messaging = FakeMessaging(error)
    registrations = registering(fake_redis, messaging)
    with pytest.raises(type(error)):
        registrations.register(ADA, Cause("1"), idempotency_key="k")
    messaging.answer = Delivery.SENT
    assert registrations.register(ADA, Cause("2"), idempotency_key="k").delivery is Delivery.SENT
    assert len(messaging.sent) == 2


def registered(outcome: Any) -> Registration:
    """The registration that came out."""
    assert isinstance(outcome, Stored)
    return outcome.registration


def test_a_registration_gets_a_number_of_its_own_shard(fake_redis: fakeredis.FakeRedis) -> None:
    """The usual case: one call, and the first candidate."""
    users = FullUpTo(fake_redis, failing_calls=0)
    registration = registered(service(fake_redis, users, lambda _: 5).store(ADA, LEASE_MS))
    assert registration.number.startswith("100005")
    assert int(registration.number[-4:-1]) == users.keys(ADA.service, ADA.address).shard
    assert users.candidates == [1]  # the source repeats itself, and repeats are not tried


def test_one_candidate_is_enough_while_every_first_one_is_free(fake_redis: fakeredis.FakeRedis) -> None:
    """Until one is taken: then a few are drawn again."""
    draws = count()
    users = FullUpTo(fake_redis, failing_calls=0)
    registrations = service(fake_redis, users, lambda _: next(draws))
    for _ in range(ALL_FREE + 2):
        registrations.store(ADA, LEASE_MS)
    assert users.candidates == [FIRST_CANDIDATES] * ALL_FREE + [1, 1]
    users.failing_calls = len(users.candidates) + 1
    registrations.store(ADA, LEASE_MS)
    registrations.store(ADA, LEASE_MS)
    assert users.candidates[-3:] == [1, MORE_CANDIDATES, FIRST_CANDIDATES]


def test_it_draws_again_while_every_candidate_is_taken(fake_redis: fakeredis.FakeRedis) -> None:
    """The loop of the diagram: a few candidates first, then many."""
    source = count()
    users = FullUpTo(fake_redis, failing_calls=3)
    registration = registered(service(fake_redis, users, lambda _: next(source)).store(ADA, LEASE_MS))
    assert users.candidates == [FIRST_CANDIDATES] + [MORE_CANDIDATES] * 3
    assert registration.number.startswith(str(100_000 + FIRST_CANDIDATES + 2 * MORE_CANDIDATES))


def test_it_gives_up_within_its_bound(fake_redis: fakeredis.FakeRedis) -> None:
    """A full shard must cost a request milliseconds, not for ever."""
    source = count()
    users = FullUpTo(fake_redis, failing_calls=MAX_CALLS)
    with pytest.raises(NumberSpaceExhausted):
        service(fake_redis, users, lambda _: next(source)).store(ADA, LEASE_MS)
    assert users.candidates == [FIRST_CANDIDATES] + [MORE_CANDIDATES] * (MAX_CALLS - 1)


def test_the_last_call_of_the_bound_still_counts(fake_redis: fakeredis.FakeRedis) -> None:
    """The bound is on calls, not on failures."""
    source = count()
    users = FullUpTo(fake_redis, failing_calls=MAX_CALLS - 1)
    registered(service(fake_redis, users, lambda _: next(source)).store(ADA, LEASE_MS))


def test_a_number_that_another_address_holds_is_passed_over(fake_redis: fakeredis.FakeRedis) -> None:
    """With a real script: two neighbours of one shard, one source that starts over."""
    users = FullUpTo(fake_redis, failing_calls=0)
    draws = iter([7, 7, 7, 7, 7, 7, 7, 8])
    shard = users.keys(ADA.service, ADA.address).shard
    neighbour = next(
        draft
        for draft in (Draft(Address.parse(f"n{i}@example.com"), "t", "en", Service()) for i in count())
        if users.keys(draft.service, draft.address).shard == shard
    )
    registrations = service(fake_redis, users, lambda _: next(draws))
    first = registered(registrations.store(ADA, LEASE_MS))
    second = registered(registrations.store(neighbour, LEASE_MS))
    assert first.number[:6] == "100007"
    assert second.number[:6] == "100008"


def test_registering_again_gives_another_number_and_frees_the_old_one(
    fake_redis: fakeredis.FakeRedis,
) -> None:
    """Steps 4 to 6 of the diagram."""
    source = count()
    users = FullUpTo(fake_redis, failing_calls=0)
    registrations = service(fake_redis, users, lambda _: next(source))
    first, second = (registered(registrations.store(ADA, LEASE_MS)) for _ in range(2))
    assert first.user_id == second.user_id
    assert first.number != second.number
    assert first.registration_id != second.registration_id
    live = users.keys(ADA.service, ADA.address).number_prefix + Names(None).number(second.number)
    assert [text(key) for key in fake_redis.keys("*:number:*")] == [live]


def test_nothing_is_registered_in_the_data_of_another_key(fake_redis: fakeredis.FakeRedis) -> None:
    """The guard is asked before the first write."""
    Guard(FakeStorage(fake_redis), Names("an index key of another service, a long one"), Sealer([])).check()
    users = FullUpTo(fake_redis, failing_calls=0)
    with pytest.raises(WrongIndexKey):
        service(fake_redis, users, lambda _: 0).store(BOB, LEASE_MS)
    assert users.candidates == []


def test_a_resend_tells_of_the_registration_that_was_mailed(fake_redis: fakeredis.FakeRedis) -> None:
    """Also where the address was registered again while the mail was under way."""

    class Overtaken(FakeMessaging):
        def send(self, stored: Stored, plan: SendPlan, cause: Cause) -> Delivery:
            if stored.registration.resends:
                ours.store(ADA, 0)
            return super().send(stored, plan, cause)

    ours = registering(fake_redis, Overtaken())
    user_id = ours.register(ADA, Cause()).user_id
    before = ours.find(user_id)
    assert ours.resend(ADA.service, user_id, Cause()).registration_id == before.registration_id
    assert ours.find(user_id).registration_id != before.registration_id
