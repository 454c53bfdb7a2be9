"""keep_answer.lua on a real Valkey: a request that was held up writes into no mark but its own."""

from collections.abc import Callable, Iterator

import pytest
import redis

from app.domain.registration import Delivery, Registered, Registration, Stored
from app.errors import RequestInProgress
from app.repositories.keys import Field
from tests.api.conftest import race
from tests.support.people import KEY, Process, ada, age_mark
from tests.support.servers import Valkey

ANSWERS = [Delivery.SENT, Delivery.PENDING, None]
"""Of the request that was held up; None: it came to nothing."""


@pytest.fixture
def here(valkey_server: Valkey, store: redis.Redis) -> Iterator[Process]:
    process = Process(valkey_server.url, limit=0)
    yield process
    process.close()


def held_up(here: Process, store: redis.Redis) -> Registration:
    """Of a request that was stored some time ago, and has still no answer."""
    registration = here.registered(ada(), key=KEY).registration
    age_mark(store, 6)
    return registration


def repeated(here: Process) -> Registered:
    found = here.outcome(ada(), key=KEY)
    assert isinstance(found, Registered)
    return found


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_request_that_was_carried_out_since_keeps_its_mark(
    here: Process, store: redis.Redis, answer: Delivery | None
) -> None:
    """The first one was refused, and nothing stood of it any more when it was repeated."""
    first = held_up(here, store)
    here.users.erase(first.user_id)
    second = here.registered(ada(), key=KEY).registration
    here.answered(ada(), first, answer)
    with pytest.raises(RequestInProgress):
        here.outcome(ada(), key=KEY)
    here.answered(ada(), second, Delivery.SENT)
    here.answered(ada(), first, answer)
    assert repeated(here).created_ms == second.asked_for_ms
    assert repeated(here).delivery is Delivery.SENT


def test_what_a_repetition_was_told_is_not_taken_back_where_the_request_fails(
    here: Process, store: redis.Redis
) -> None:
    """Another request has replaced its registration meanwhile, and would itself be replaced."""
    first = held_up(here, store)
    second = here.registered(ada()).registration
    told = repeated(here)
    here.answered(ada(), first, None)
    assert repeated(here) == told
    live = store.hget(here.keys(ada()).user, Field.REGISTRATION)
    assert live == second.registration_id.encode()


def test_a_repetition_and_an_end_that_race_leave_one_truth(here: Process, store: redis.Redis) -> None:
    """Also while the script cache is lost: either it is told what stands, or it is carried out."""
    for _ in range(15):
        store.flushall()
        first = held_up(here, store)

        def end(first: Registration = first) -> Stored | Registered | None:
            store.script_flush()
            here.answered(ada(), first, None)
            return None

        acts: list[Callable[[], Stored | Registered | None]] = [end, lambda: here.outcome(ada(), key=KEY)]
        _, found = race(acts)
        if isinstance(found, Registered):
            assert repeated(here) == found
        else:
            with pytest.raises(RequestInProgress):
                here.outcome(ada(), key=KEY)
