"""What is written when something happens to a registration, and how it is handed out, on a real Valkey."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from app.domain.event import EventKind
from app.domain.registration import Delivery, Stored
from app.domain.report import ReportKind
from app.errors import VerificationFailed
from app.repositories.events import CLAIM_MS, FULL_MS, LONGEST_WAIT_MS, USERS_A_SHARD, Left, Queue
from app.repositories.keys import EVENTS_WAITING, RECEIVERS, Field, keys_of
from app.repositories.users import WRONG_IN_A_ROW
from tests.api.conftest import at_once, race, wrong
from tests.support.faults.redis import everything
from tests.support.people import HOUR_MS, KEY, Process, ada, age_mark
from tests.support.scan import contradictions, kinds
from tests.support.servers import Valkey
from tests.support.telling import KINDS_OF_KEY, Person
from tests.support.values import text, there
from tests.support.waiting import wait_until

SENT, FAILED, VERIFIED, EXPIRED = EventKind.SENT, EventKind.FAILED, EventKind.VERIFIED, EventKind.EXPIRED
BOUNCED, COMPLAINED = EventKind.BOUNCED, EventKind.COMPLAINED


@pytest.fixture
def here(valkey_server: Valkey, store: redis.Redis) -> Iterator[Process]:
    """A process of a service that wants events."""
    process = Process(valkey_server.url, ("k" * 32,), "i" * 32, limit=0, listens=True)
    yield process
    process.close()


@pytest.fixture
def person(here: Process, store: redis.Redis) -> Iterator[Person]:
    """Ada. Whatever a test does to her, what Redis holds fits together afterwards."""
    yield Person(here, store, ada())
    assert contradictions(store) == []


# What is written


def sent(at: Person) -> None:
    at.sent()


def resent(at: Person) -> None:
    at.sent()
    at.settled(there(at.process.resent(ada())))


def failed(at: Person) -> None:
    at.settled(at.registered(), Delivery.FAILED)


def given_up(at: Person) -> None:
    """Its last attempt came after a day."""
    stored = at.registered()
    at.aged(24)
    assert at.settled(stored, Delivery.PENDING).delivery is Delivery.FAILED


def too_old(at: Person) -> None:
    """The mail server was away for a day."""
    at.registered(lease_ms=0)
    at.aged(24)
    assert at.process.outbox.claim(at.user_id, "me").mail_id == ""


def dropped(at: Person) -> None:
    at.registered(lease_ms=0)
    assert at.process.outbox.drop(at.user_id) == "dropped"


def refused_though_promised(at: Person) -> None:
    """A repetition of the request was answered 202."""
    stored = at.registered(key=KEY)
    age_mark(at.store, 60)
    at.process.outcome(ada(), key=KEY)
    assert at.settled(stored, Delivery.REFUSED).delivery is Delivery.FAILED


def bounced(at: Person) -> None:
    at.sent()
    at.reported()


def complained(at: Person) -> None:
    at.sent()
    at.reported(ReportKind.COMPLAINED)


def verified(at: Person) -> None:
    at.verified(at.sent())


def expired(at: Person) -> None:
    at.sent()
    at.ended()
    assert at.swept() == 1


CHANGES: dict[Callable[[Person], None], list[EventKind]] = {
    sent: [SENT],
    resent: [SENT, SENT],
    failed: [FAILED],
    given_up: [FAILED],
    too_old: [FAILED],
    dropped: [FAILED],
    refused_though_promised: [FAILED],
    bounced: [SENT, BOUNCED],
    complained: [SENT, COMPLAINED],
    verified: [SENT, VERIFIED],
    expired: [SENT, EXPIRED],
}
"""What happens, and of what the service is told."""

changes = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)


@changes
def test_each_change_writes_its_events(person: Person, change: Callable[[Person], None]) -> None:
    """In the order in which they happened, with the time of each and that of the registration."""
    change(person)
    assert person.kinds == CHANGES[change]
    now_ms = person.process.outbox.now_ms()
    assert {now_ms - event.at_ms < 10_000 for event in person.told} == {True}
    assert len({event.created_ms for event in person.told}) == 1
    assert person.delivered() == CHANGES[change]
    assert kinds(person.store).keys().isdisjoint({"events", "schedule", "waiting"})


@changes
def test_a_service_that_wants_no_events_leaves_nothing_for_them(
    person: Person, change: Callable[[Person], None]
) -> None:
    """Neither an event nor an end outlives what happened."""
    person.process.listens = False
    if change is not expired:
        change(person)
    else:
        person.sent()
    assert kinds(person.store).keys().isdisjoint(KINDS_OF_KEY)


@changes
def test_nothing_personal_is_in_an_event(person: Person, change: Callable[[Person], None]) -> None:
    """Neither in the name nor in the value of any key that there is for the sake of events."""
    change(person)
    number = person.registered().registration.number
    found = [key for kind in KINDS_OF_KEY for key in person.store.scan_iter(f"*:{kind}*")]
    assert found
    held = b" ".join([*found, *(person.store.dump(key) or b"" for key in found)])
    for personal in ("ada", "example", "t0ken", number):
        assert personal.encode() not in held


def test_the_times_are_those_of_the_change_and_of_its_registration(person: Person) -> None:
    """By the clock of Redis, as everything in the API."""
    stored = person.sent()
    record = there(person.process.users.find(person.user_id))
    (told,) = person.told
    assert (told.at_ms, told.created_ms) == (record.mailed_ms, record.created_ms)
    ended_ms = person.ended()
    person.swept()
    assert person.told[-1] == (EXPIRED, ended_ms, stored.registration.asked_for_ms)


def refuse(at: Person) -> None:
    at.settled(at.registered(), Delivery.REFUSED)


def replace(at: Person) -> None:
    at.registered()
    at.registered()


def erase(at: Person) -> None:
    at.registered()
    assert at.process.users.erase(at.user_id)


def guess_too_often(at: Person) -> None:
    number = at.registered().registration.number
    for turn in range(WRONG_IN_A_ROW):
        with pytest.raises(VerificationFailed):
            at.process.verify(ada(), wrong(number, 1 + turn))


@pytest.mark.parametrize("end", [refuse, replace, erase, guess_too_often])
def test_a_registration_that_is_refused_replaced_or_erased_has_no_event_for_that(
    person: Person, end: Callable[[Person], None]
) -> None:
    """Nor has it one when its number would have ended."""
    end(person)
    assert person.told == []
    assert kinds(person.store)["expiry"] == (1 if end is replace else 0)


def test_a_test_registration_confirms_nothing_once_its_service_is_real(person: Person) -> None:
    """It was shown instead of mailed. While its service is a test service, it is told like any other."""
    person.process.test = True
    person.verified(person.sent())
    assert person.delivered() == [SENT, VERIFIED]
    stored = person.sent()
    person.process.test = False
    person.process.users.verify(person.process.service, ada(), stored.registration.number)
    assert person.delivered() == [SENT]


# What comes first, and how often


def test_a_number_that_is_handed_in_before_the_settling_was_sent_before(person: Person) -> None:
    """Who knows it has the mail. The settling finds nothing more to tell."""
    stored = person.registered()
    person.verified(stored)
    assert person.kinds == [SENT, VERIFIED]
    person.settled(stored)
    assert person.kinds == [SENT, VERIFIED]


@pytest.mark.parametrize("kind", [ReportKind.BOUNCED, ReportKind.COMPLAINED])
def test_a_mail_that_is_reported_before_the_settling_was_sent_before(
    person: Person, kind: ReportKind
) -> None:
    """However often its settling is repeated afterwards."""
    stored = person.registered()
    person.reported(kind)
    for _ in range(3):
        person.settled(stored)
    assert person.kinds == [SENT, kind.value]


def test_a_settling_that_is_repeated_tells_nothing_twice(person: Person) -> None:
    """Its answer was lost, and nobody knows whether it was carried out."""
    stored = person.registered()
    for _ in range(3):
        person.settled(stored)
    assert person.kinds == [SENT]


@pytest.mark.parametrize("go_on", [False, True])
def test_it_does_not_either_where_another_mail_was_asked_for_meanwhile(person: Person, go_on: bool) -> None:
    """Before the settling or after it."""
    stored = person.registered()
    there(person.process.resent(ada()))
    for _ in range(2):
        person.settled(stored, go_on=go_on)
    assert person.kinds == [SENT]


def test_it_does_not_either_where_the_mail_came_back_meanwhile(person: Person) -> None:
    """The report came between the settling and its repetition."""
    stored = person.sent()
    person.reported()
    person.settled(stored)
    assert person.kinds == [SENT, BOUNCED]


def test_each_mail_that_is_accepted_is_told_once(person: Person) -> None:
    """Each resend is a mail; one that came back does not keep the next from being told."""
    first = person.sent()
    for turn in (1, 2):
        person.reported(mail=turn - 1)
        again = there(person.process.resent(ada()))
        for _ in range(2):
            person.settled(again)
    person.verified(first)
    assert person.kinds == [SENT, BOUNCED, SENT, BOUNCED, SENT, VERIFIED]


def test_a_report_tells_of_the_mail_that_it_is_about(person: Person) -> None:
    """That of the resend, whose acceptance is not written down yet."""
    person.sent()
    again = there(person.process.resent(ada()))
    person.reported(mail=1)
    person.settled(again)
    assert person.kinds == [SENT, SENT, BOUNCED]


def test_the_same_report_is_told_once(person: Person) -> None:
    """Mail servers repeat themselves."""
    person.sent()
    for kind in (ReportKind.BOUNCED, ReportKind.BOUNCED, ReportKind.SOFT, ReportKind.COMPLAINED):
        person.reported(kind)
    assert person.kinds == [SENT, BOUNCED, COMPLAINED]


def test_a_mail_that_failed_may_be_sent_after_all(person: Person) -> None:
    """An operator has it tried again."""
    failed(person)
    assert person.process.outbox.retry(person.user_id)
    claim = person.process.outbox.claim(person.user_id, "me")
    person.settled(Stored(there(claim.registration), "me"))
    assert person.kinds == [FAILED, SENT]


def test_a_mail_of_a_registration_that_was_replaced_is_not_told(person: Person) -> None:
    """Its number is good no more."""
    old = person.registered()
    new = person.registered()
    person.settled(old, go_on=True)
    assert person.told == []
    person.settled(Stored(new.registration, old.owner))
    assert [event.created_ms for event in person.told] == [new.registration.asked_for_ms]


# Ends


def test_an_end_is_told_once(person: Person) -> None:
    """However many look for it, and not before it."""
    person.registered()
    assert person.process.events.expired(person.shards) == []
    assert not person.process.events.note_expiry(person.user_id)
    person.ended()
    told = at_once(16, person.swept)
    assert sum(told) == 1
    assert person.kinds == [EXPIRED]
    assert kinds(person.store).keys().isdisjoint({"expiry", "expiries"})


def test_an_end_by_time_to_live_is_told(person: Person) -> None:
    """As Redis itself ends a registration."""
    person.process.ttl_s = 1
    person.sent()
    assert wait_until(person.swept, 10) == 1
    assert person.kinds == [SENT, EXPIRED]
    assert person.told[1].at_ms == person.told[1].created_ms + 1000


def test_an_end_that_is_looked_at_too_early_is_looked_at_again(person: Person, store: redis.Redis) -> None:
    """The nodes of a cluster have clocks of their own."""
    person.registered()
    keys = keys_of(person.user_id)
    store.zadd(keys.expiries, {person.user_id: 1})
    assert person.swept() == 0
    assert person.process.events.expired(person.shards) == []
    person.ended()
    assert person.swept() == 1


@pytest.mark.parametrize("listens", [True, False])
def test_a_registration_made_after_an_end_tells_of_the_end_first(person: Person, listens: bool) -> None:
    """No sweep has seen it yet; nobody looks for it afterwards."""
    first = person.sent()
    person.ended()
    person.process.listens = listens
    person.sent()
    assert person.kinds == [SENT, EXPIRED, *[SENT] * listens]
    assert person.told[1].created_ms == first.registration.asked_for_ms
    assert person.swept() == 0
    assert kinds(person.store)["expiry"] == listens


@pytest.mark.parametrize("end", [verified, erase, refuse], ids=lambda end: end.__name__)
def test_what_else_ends_a_registration_leaves_no_end_behind(
    person: Person, end: Callable[[Person], None]
) -> None:
    """And so no event of one."""
    end(person)
    assert kinds(person.store).keys().isdisjoint({"expiry", "expiries"})


def test_an_end_that_is_not_told_yet_is_told_also_after_an_erasure(person: Person) -> None:
    """There was nothing left to erase."""
    person.registered()
    person.ended()
    assert not person.process.users.erase(person.user_id)
    assert person.swept() == 1


def test_an_end_of_a_registration_that_somebody_replaced_unheard_is_forgotten(
    person: Person, store: redis.Redis
) -> None:
    """A process of an earlier release, which knows nothing of ends. What is live now is not told as ended."""
    person.sent()
    store.hdel(keys_of(person.user_id).user, Field.TOLD)
    store.zadd(keys_of(person.user_id).expiries, {person.user_id: 1})
    assert person.swept() == 0
    assert kinds(store).keys().isdisjoint({"expiry", "expiries"})
    assert person.kinds == [SENT]


def test_a_registration_without_an_end_has_none_to_tell(person: Person) -> None:
    """NUMBER_TTL is 0."""
    person.process.ttl_s = 0
    person.sent()
    assert kinds(person.store).keys().isdisjoint({"expiry", "expiries"})


def test_the_order_holds_over_several_registrations(person: Person) -> None:
    """`created_at` tells which each event is of."""
    created = []
    for end in (person.ended, lambda: person.process.users.erase(person.user_id), person.ended):
        created.append(person.sent().registration.asked_for_ms)
        end()
    person.verified(person.sent())
    assert person.kinds == [SENT, EXPIRED, SENT, SENT, EXPIRED, SENT, VERIFIED]
    told = [event.created_ms for event in person.told]
    assert told[:5] == [created[0], created[0], created[1], created[2], created[2]]


# Handing out


def test_one_of_many_gets_an_event(person: Person) -> None:
    """Also where the script cache is lost just then."""
    for _ in range(10):
        person.sent()

        def claim() -> bool:
            person.store.script_flush()
            return person.process.events.claim(person.queue) is not None

        assert sum(at_once(16, claim)) == 1
        assert person.process.events.drop(person.queue) == 1
        person.process.users.erase(person.user_id)


def test_a_race_delivers_each_event_once_and_in_its_order(person: Person) -> None:
    """Many couriers are at one user's events while more are written."""
    person.sent()
    got: list[int] = []

    def deliver() -> None:
        for _ in range(40):
            claim = person.process.events.claim(person.queue)
            if claim is not None:
                got.append(claim.event.created_ms)
                assert person.process.events.settle(person.queue, claim) in (Left.MORE, Left.EMPTY)

    def write() -> None:
        for _ in range(20):
            stored = person.registered(lease_ms=0)
            claim = person.process.outbox.claim(person.user_id, "me")
            person.settled(Stored(there(claim.registration), "me"))
            assert stored.registration.user_id == person.user_id

    race([*[deliver] * 6, write])
    got += [event.created_ms for event in person.told]
    assert len(got) == 21
    assert got == sorted(got)


def test_later_events_wait_for_the_one_that_is_being_delivered(person: Person) -> None:
    """And come as soon as it was taken."""
    stored = person.sent()
    claim = person.claimed()
    person.verified(stored)
    assert person.process.events.claim(person.queue) is None
    assert person.process.events.due(person.shards) == []
    assert person.process.events.settle(person.queue, claim) is Left.MORE
    assert person.process.events.due(person.shards) == [person.queue]
    assert person.delivered() == [VERIFIED]


def test_an_event_that_was_not_taken_waits_and_those_after_it_do(person: Person) -> None:
    """It is the same event for its receiver, however often it is tried."""
    verified(person)
    first = person.claimed()
    assert person.process.events.settle(person.queue, first, wait_ms=60_000) is Left.WAITS
    assert person.process.events.claim(person.queue) is None
    person.process.events.wake([person.process.name], person.shards)
    again = person.claimed()
    assert (again.event, again.attempts) == (first.event, 2)
    assert person.process.events.settle(person.queue, again, wait_ms=0) is Left.WAITS
    assert person.delivered() == [SENT, VERIFIED]


def test_a_claim_that_has_ended_is_somebody_elses(person: Person, store: redis.Redis) -> None:
    """The process has died, or its receiver was too slow. What it says afterwards changes nothing."""
    verified(person)
    old = person.claimed()
    wait_until(lambda: person.process.outbox.now_ms() > old.now_ms, 5)
    store.zadd(keys_of(person.user_id).schedule, {text_of(person.queue): old.now_ms - 1})
    assert person.process.events.due(person.shards) == [person.queue]
    new = person.claimed()
    assert new.attempts == 2
    before = everything(store)
    for wait_ms in (None, 1000):
        assert person.process.events.settle(person.queue, old, wait_ms) is Left.LOST
    assert everything(store) == before
    assert person.process.events.settle(person.queue, new) is Left.MORE


def test_a_claim_stands_as_long_as_nobody_else_has_the_event(person: Person) -> None:
    """A sweep that had found it due before may put it off meanwhile."""
    verified(person)
    claim = person.claimed()
    person.process.events.put_off([person.queue], LONGEST_WAIT_MS)
    assert person.process.events.settle(person.queue, claim) is Left.MORE
    assert person.delivered() == [VERIFIED]


def text_of(queue: Queue) -> str:
    """The entry in the schedule."""
    return "|".join(queue)


def test_what_is_settled_twice_takes_no_second_event(person: Person) -> None:
    """An answer of Redis was lost."""
    verified(person)
    claim = person.claimed()
    assert person.process.events.settle(person.queue, claim) is Left.MORE
    assert person.process.events.settle(person.queue, claim) is Left.LOST
    assert person.kinds == [VERIFIED]


def test_events_have_ids_of_their_own_that_say_nothing(person: Person, here: Process) -> None:
    """Two of the same kind, of one registration or of two, are two."""
    for _ in range(2):
        person.sent()
        wait_until(lambda: here.outbox.now_ms() > person.told[-1].at_ms, 5)
        person.settled(there(here.resent(ada())))
    found = []
    while claim := here.events.claim(person.queue):
        found.append(claim.event)
        here.events.settle(person.queue, claim)
    assert len({event.event_id for event in found}) == len(found) == 4
    for event in found:
        assert event.event_id.startswith("evt_")
        assert person.user_id[2:] not in event.event_id
    other = Process(here.url, ("k" * 32,), "another" * 5, listens=True)
    person.sent()
    ours, theirs = here.events.claim(person.queue), None
    person.store.zadd(keys_of(person.user_id).schedule, {text_of(person.queue): 1})
    theirs = other.events.claim(person.queue)
    assert there(ours).event.event_id != there(theirs).event.event_id
    other.close()


def test_what_a_later_release_wrote_is_left_to_it(person: Person, store: redis.Redis) -> None:
    """Its user's events wait; nobody else's do."""
    sent(person)
    key = keys_of(person.user_id).events
    for line in (b"renamed|1|2|default|0", b"sent|soon|2|default|0", b"\xff|1|2|default|0"):
        store.execute_command("LSET", key, 0, line)
        person.process.events.wake([person.process.name], person.shards)
        store.zadd(keys_of(person.user_id).schedule, {text_of(person.queue): 1})
        assert person.process.events.claim(person.queue) is None
        due_ms = there(store.zscore(keys_of(person.user_id).schedule, text_of(person.queue)))
        assert due_ms > person.process.outbox.now_ms() + CLAIM_MS
    store.lset(key, 0, "sent|1|2|default|0")


def test_all_events_of_a_user_are_dropped_and_told(person: Person) -> None:
    """Its receiver wants no more. What is being delivered just then is lost to its courier."""
    verified(person)
    claim = person.claimed()
    assert person.process.events.drop(person.queue) == 2
    assert person.process.events.drop(person.queue) == 0
    assert person.process.events.settle(person.queue, claim) is Left.LOST
    assert person.told == []
    sent(person)
    assert person.delivered() == [SENT]


@pytest.mark.parametrize("wait_ms", [CLAIM_MS // 2, LONGEST_WAIT_MS])
def test_what_waits_for_one_service_is_woken_alone(here: Process, person: Person, wait_ms: int) -> None:
    """And what is in somebody's hands is left there."""
    shop = dataclasses.replace(here, name="shop")
    shopper = Person(shop, person.store, ada())
    for each in (person, shopper):
        each.sent()
        each.process.events.settle(each.queue, each.claimed(), wait_ms=wait_ms)
    here.events.wake(["sho", "shop"], person.shards)
    assert here.events.due(person.shards) == [shopper.queue]
    claim = shopper.claimed()
    here.events.wake(["shop"], person.shards)
    assert shop.events.claim(shopper.queue) is None
    assert shop.events.settle(shopper.queue, claim) is Left.EMPTY
    assert here.events.queues_of("default") == [person.queue]
    assert here.events.queues_of("shop") == []
    shop.close()


def test_a_spoiled_key_keeps_nobody_else_from_being_woken(person: Person, store: redis.Redis) -> None:
    """Nor from being counted, or left out."""
    sent(person)
    person.process.events.settle(person.queue, person.claimed(), wait_ms=LONGEST_WAIT_MS)
    shards = [f"{{{shard:03}}}" for shard in range(1000) if shard not in person.shards]
    spoiled = [f"{shard}:{kind}" for shard in (shards[0], shards[-1]) for kind in ("schedule", "waiting")]
    for key in spoiled:
        store.set(key, "x")
    person.process.events.wake([person.process.name], range(1000))
    assert person.process.events.due(person.shards) == [person.queue]
    assert person.process.events.count().waiting == {"default": 1}
    person.process.events.leave_out(person.process.name)
    there(person.process.resent(ada()))
    person.reported()
    assert person.kinds == [SENT]
    store.delete(*spoiled)


def test_a_sweep_finds_so_many_of_a_shard(person: Person, here: Process, store: redis.Redis) -> None:
    """The rest is found by the next one."""
    schedule = keys_of(person.user_id).schedule
    users = [f"{person.user_id[:2]}{turn:024}" for turn in range(USERS_A_SHARD + 5)]
    store.zadd(schedule, {f"default|{user_id}": turn for turn, user_id in enumerate(users)})
    store.expire(schedule, 60)
    assert len(here.events.due(range(1000))) == USERS_A_SHARD
    here.events.put_off(here.events.due(person.shards), 60_000)
    assert len(here.events.due(range(1000))) == 5
    assert store.zcount(schedule, here.outbox.now_ms() + 29_000, "+inf") == USERS_A_SHARD
    store.delete(schedule)


def test_putting_off_brings_nothing_back_and_nothing_forward(person: Person, here: Process) -> None:
    """What was delivered meanwhile stays so, and what is to wait for longer does."""
    sent(person)
    assert person.delivered() == [SENT]
    here.events.put_off([person.queue], 1000)
    assert kinds(person.store)["schedule"] == 0
    there(here.resent(ada()))
    person.reported()
    here.events.settle(person.queue, person.claimed(), wait_ms=LONGEST_WAIT_MS)
    schedule = keys_of(person.user_id).schedule
    before = person.store.zrange(schedule, 0, -1, withscores=True)
    here.events.put_off([person.queue], 1000)
    assert person.store.zrange(schedule, 0, -1, withscores=True) == before


# How many wait


def test_what_waits_is_counted_by_service(person: Person, here: Process) -> None:
    """Over all shards; what was counted is left to whoever asks."""
    shop = dataclasses.replace(here, name="shop")
    verified(person)
    sent(Person(shop, person.store, ada()))
    waiting, dropped = here.events.count()
    assert (waiting, dropped) == ({"default": 2, "shop": 1}, {})
    assert here.events.published() == {}
    here.events.publish(waiting)
    assert here.events.published() == {"default": 2, "shop": 1}
    shop.close()


@pytest.mark.parametrize("value", ["x", "[]", '{"shop": "x"}', '{"shop": null}'])
def test_what_was_counted_is_unknown_where_somebody_else_wrote_it(
    here: Process, store: redis.Redis, value: str
) -> None:
    """Metrics are told all the same; also where names are none."""
    store.set(EVENTS_WAITING, value, ex=60)
    assert here.events.published() == {}
    here.events.publish(Counter({"no name": 1}))
    assert here.events.published() == {"no name": 1}


def test_further_events_of_a_service_with_too_many_are_left_out_and_counted(
    person: Person, here: Process, store: redis.Redis
) -> None:
    """Registrations go on, and other services' events do. It ends by itself."""
    shop = dataclasses.replace(here, name="shop")
    shopper = Person(shop, store, ada())
    stored = person.sent()
    here.events.leave_out("default")
    person.verified(stored)
    sent(shopper)
    assert (person.kinds, shopper.kinds) == ([SENT], [SENT])
    assert here.events.count().dropped == {"default": 1}
    assert here.events.count().dropped == {}
    waiting = keys_of(person.user_id).waiting
    assert 0 < int(text(store.hget(waiting, "default:full"))) - here.outbox.now_ms() <= FULL_MS
    store.hincrby(waiting, "default:full", -FULL_MS)
    sent(person)
    assert person.kinds == [SENT, SENT]
    shop.close()


@pytest.mark.parametrize("value", ["x", "", "1e999"])
@pytest.mark.parametrize("name", ["default", "default:full", "default:dropped"])
def test_a_count_that_is_no_number_stops_nothing(
    person: Person, here: Process, store: redis.Redis, name: str, value: str
) -> None:
    """Registrations go on, whatever is wrong with what waits."""
    waiting = keys_of(person.user_id).waiting
    store.hset(waiting, name, value)
    stored = person.sent()
    here.events.leave_out("default")
    person.verified(stored)
    assert here.events.count().waiting["default"] in (0, 1)
    store.hset(waiting, "default", 1)
    store.hset(waiting, "default:dropped", 0)


# What endures


def set_back(store: redis.Redis, person: Person) -> None:
    """What Redis looks like when its clock is set back an hour."""
    keys = keys_of(person.user_id)
    store.zincrby(keys.schedule, HOUR_MS, text_of(person.queue))
    store.hincrby(keys.waiting, "default:full", HOUR_MS)


@pytest.mark.parametrize("claimed", [True, False])
def test_no_event_waits_for_a_clock_that_was_set_back(
    person: Person, store: redis.Redis, claimed: bool
) -> None:
    """Neither one that is put off, nor one whose courier has died; and none is left out for an hour."""
    stored = person.sent()
    claim = person.claimed()
    if not claimed:
        person.process.events.settle(person.queue, claim, wait_ms=LONGEST_WAIT_MS)
    assert person.process.events.due_never(person.shards) == []
    person.process.events.leave_out("default")
    set_back(store, person)
    assert person.process.events.due(person.shards) == []
    assert person.process.events.due_never(person.shards) == [person.queue]
    person.verified(stored)
    assert person.delivered() == [SENT, VERIFIED]
    assert person.process.events.settle(person.queue, claim) is Left.LOST


def test_everything_ends_by_itself(person: Person, here: Process, store: redis.Redis) -> None:
    """Whatever is done, each key has a time to live, also where the schedule had this user only."""
    deeds: list[Callable[[], Any]] = [
        lambda: verified(person),
        lambda: here.events.settle(person.queue, person.claimed()),
        lambda: here.events.settle(person.queue, person.claimed(), wait_ms=0),
        lambda: here.events.wake(["default"], person.shards),
        lambda: store.delete(keys_of(person.user_id).schedule),
        person.claimed,
        person.registered,
        person.ended,
        person.swept,
        lambda: here.events.leave_out("default"),
        here.events.count,
        lambda: here.events.publish(here.events.count().waiting),
        lambda: here.events.note_receiver("default", "failing"),
        lambda: here.events.hold_relay("me", 1000),
        lambda: here.events.drop(person.queue),
    ]
    for deed in deeds:
        deed()
        for kind, key in itertools.product((*KINDS_OF_KEY, "receivers", "event-relay"), store.scan_iter()):
            if text(key).split(":")[1] == kind:
                assert store.pttl(key) > 0, (deed, key)
    assert here.events.count() == ({}, {})


def test_what_waits_lives_as_long_as_somebody_works_on_it(
    person: Person, here: Process, store: redis.Redis
) -> None:
    """A list that ended would be counted for ever, so that at last its service counts as full; one whose
    schedule ended would not be found."""
    sent(person)
    keys = keys_of(person.user_id)
    deeds: list[Callable[[], Any]] = [person.claimed, lambda: here.events.put_off([person.queue], 1000)]
    for deed in deeds:
        for key in (keys.events, keys.schedule):
            store.expire(key, 60)
        deed()
        for key in (keys.events, keys.schedule):
            assert store.pttl(key) > 6 * 24 * HOUR_MS


def test_an_end_is_kept_for_a_week_after_it(person: Person, here: Process, store: redis.Redis) -> None:
    """For a service that stands still for so long. A shorter life makes those before it no shorter."""
    person.registered()
    keys = keys_of(person.user_id)
    week_ms = 7 * 24 * HOUR_MS
    for key in (keys.expiry, keys.expiries):
        assert week_ms < store.pttl(key) <= week_ms + HOUR_MS
    dataclasses.replace(here, name="shop", ttl_s=60).registered(ada())
    assert store.zcard(keys.expiries) == 2
    assert store.pttl(keys.expiries) > week_ms + HOUR_MS // 2


# What is known of receivers


def test_all_processes_know_the_same_of_receivers(here: Process, store: redis.Redis) -> None:
    """Until one of them forgets it."""
    other = dataclasses.replace(here)
    for service in ("default", "shop", "bank"):
        here.events.note_receiver(service, "failing")
    assert other.events.receivers() == dict.fromkeys(("default", "shop", "bank"), "failing")
    other.events.forget_receivers(["default", "bank"])
    assert here.events.receivers() == {"shop": "failing"}
    other.close()


def test_what_is_known_of_receivers_is_kept_while_somebody_sweeps(here: Process, store: redis.Redis) -> None:
    """A receiver that wants no more events gets none also days later."""
    here.events.note_receiver("default", "gone")
    store.expire(RECEIVERS, 60)
    here.events.keep_receivers()
    assert store.ttl(RECEIVERS) > 24 * 3600


def test_a_spoiled_key_of_receivers_is_made_anew(here: Process, store: redis.Redis) -> None:
    """It is found out again which of them fail."""
    store.set(RECEIVERS, "x", ex=60)
    assert here.events.receivers() == {}
    here.events.note_receiver("default", "failing")
    assert here.events.receivers() == {"default": "failing"}


def test_a_record_has_what_events_need_where_they_are_wanted(person: Person, store: redis.Redis) -> None:
    """And not a byte more than before where they are not."""
    person.sent()
    record = store.hgetall(keys_of(person.user_id).user)
    assert (record[b"u"], record[b"h"]) == (b"default", b"0")
    person.process.listens = False
    person.sent()
    assert store.hgetall(keys_of(person.user_id).user).keys().isdisjoint({b"u", b"h", b"z"})
    assert {Field.TOLD.value, Field.HEARD.value, Field.TEST.value} == {"u", "h", "z"}
