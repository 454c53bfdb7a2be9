"""The parts of delivery by themselves, with a clock that is moved by hand: jobs, queue, breaker, leases."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.domain.registration import Delivery
from app.errors import StorageUnavailable
from app.mail.smtp import Blame, MailFault
from app.repositories.outbox import Due, Outbox
from app.repositories.scripts import GIVE_UP_MAIL_MS
from app.services.delivery.breaker import FAILURES_TO_OPEN, LONGEST_TRIAL_S, MailBreaker
from app.services.delivery.leases import Leases
from app.services.delivery.queue import MAX_REMEMBERED, Job, JobQueue
from app.services.delivery.relay import Relay
from app.telemetry.metrics import Metrics
from app.telemetry.traces import OFF
from tests.support.waiting import wait_until

DOWN = MailFault(Blame.SERVER, "connect refused", connected=False)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> JobQueue:
    return JobQueue(clock)


def job(name: str = "a", *, awaited: bool = True) -> Job:
    return Job(name, "owner", leased_at=1000.0, awaited=awaited)


def taken(queue: JobQueue, count: int) -> list[str]:
    """The user ids of the next jobs."""
    return [job.user_id for _ in range(count) if (job := queue.take(0))]


# Jobs


def test_a_request_that_waits_hears_the_first_answer_only() -> None:
    """A job that goes on with a replacement cannot change what was said."""
    one = job()
    one.tell(Delivery.SENT)
    one.tell(Delivery.REFUSED)
    assert one.wait(0) is Delivery.SENT


def test_a_refusal_counts_only_while_its_request_waits() -> None:
    """After the time-out, or after an answer, nothing may be erased."""
    left = job()
    assert left.wait(0) is Delivery.PENDING
    assert not left.refuse()
    told = job()
    told.tell(Delivery.PENDING)
    assert not told.refuse()
    assert not job(awaited=False).refuse()


def test_a_request_waits_on_while_its_refusal_is_written_down() -> None:
    """Else the record would go although the answer was 202."""
    one = job()
    assert one.refuse()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(one.wait, 0.01)
        threading.Event().wait(0.1)
        assert not waiting.done()
        one.tell(Delivery.REFUSED)
        assert waiting.result(5) is Delivery.REFUSED


def test_a_request_hears_of_an_error_as_an_error() -> None:
    """A refusal that Redis did not confirm: nobody knows whether the registration stands."""
    one = job()
    one.tell(StorageUnavailable("x"))
    with pytest.raises(StorageUnavailable):
        one.wait(0)


# The queue


def test_requests_come_before_the_backlog_and_the_backlog_is_not_starved(queue: JobQueue) -> None:
    """Of four turns one is the backlog's."""
    for number in range(8):
        queue.put(job(f"request{number}"))
        queue.remember(f"due{number}")
    assert taken(queue, 8) == [
        "request0", "request1", "request2", "due0", "request3", "request4", "request5", "due1"
    ]  # fmt: skip


def test_nothing_that_nobody_waits_for_starves(queue: JobQueue) -> None:
    """Requests come without end; of eight turns one is an unawaited job's and one an address's."""
    for number in range(8):
        queue.put(job(f"request{number}"))
    queue.put(job("unawaited", awaited=False))
    queue.remember("due")
    assert taken(queue, 8) == [
        "request0", "request1", "request2", "unawaited", "request3", "request4", "request5", "due"
    ]  # fmt: skip


def test_a_job_that_nobody_waits_for_comes_after_those_that_somebody_waits_for(queue: JobQueue) -> None:
    """`respond-async` must not make others wait."""
    queue.put(job("unawaited", awaited=False))
    for number in range(3):
        queue.put(job(f"request{number}"))
    assert taken(queue, 4) == [
        "request0", "request1", "request2", "unawaited"
    ]  # fmt: skip


def test_only_leased_are_taken_while_the_mail_server_is_down(queue: JobQueue) -> None:
    """They are answered; the backlog waits for the server."""
    queue.remember("due")
    queue.put(job())
    queue.put(job(awaited=False))  # holds a lease, which it must give back
    assert queue.senders_missing(only_leased=True) == 2
    assert queue.take(0, only_leased=True)
    assert queue.take(0, only_leased=True)
    assert queue.take(0, only_leased=True) is None
    assert taken(queue, 1) == ["due"]


def test_an_address_is_remembered_once_and_for_its_earliest_time(queue: JobQueue, clock: Clock) -> None:
    """However often and for whatever reasons it is named."""
    queue.remember("a", 60)
    queue.remember("a", 5)
    queue.remember("a", 30)
    clock.now += 5
    queue.wake()
    assert queue.senders_missing(only_leased=False) == 1
    assert taken(queue, 1) == ["a"]
    clock.now += 100
    queue.wake()
    assert queue.take(0) is None


def test_a_process_remembers_no_more_than_a_bound(queue: JobQueue, clock: Clock) -> None:
    """The outbox in Redis knows the rest. An address that was taken makes room for another one."""
    for number in range(MAX_REMEMBERED + 10):
        queue.remember(str(number), 10)
    clock.now += 10
    queue.wake()
    assert queue.senders_missing(only_leased=False) == MAX_REMEMBERED
    assert queue.take(0)
    queue.remember("next")
    queue.remember("one too many")
    assert queue.senders_missing(only_leased=False) == MAX_REMEMBERED


def test_senders_are_missing_where_work_outnumbers_those_that_rest(queue: JobQueue) -> None:
    """A job that a resting sender got asks for no other; the second one does."""
    with ThreadPoolExecutor(1) as pool:
        resting = pool.submit(queue.take, 5)
        wait_until(lambda: queue.resting == 1)
        first = job("first")
        queue.put(first)
        assert queue.senders_missing(only_leased=False) == 0
        queue.put(job("second"))
        assert queue.senders_missing(only_leased=False) == 1
        assert resting.result(5) is first


def test_a_queue_whose_head_was_given_up_is_stuck(queue: JobQueue, clock: Clock) -> None:
    """Then nobody who comes later is made to wait."""
    queue.put(job())
    assert not queue.stuck(10)
    clock.now += 11
    assert queue.stuck(10)


def test_a_closed_queue_gives_back_its_jobs_and_takes_no_more(queue: JobQueue) -> None:
    """So that their leases can be let go."""
    one, other = job(), job(awaited=False)
    queue.put(one)
    queue.put(other)
    assert queue.close() == [one, other]
    assert not queue.put(job())
    assert queue.take(5) is None


@pytest.mark.parametrize("patience_s", [5, 0.0001])
def test_every_job_is_taken_once_when_many_put_and_take(queue: JobQueue, patience_s: float) -> None:
    """8 takers, 8 givers, 4,000 jobs, none lost and none twice, also where takers give up just then."""
    found_ids: list[str] = []

    def take() -> None:
        while not queue.closed:
            if found := queue.take(patience_s):
                found_ids.append(found.user_id)

    def give(giver: int) -> None:
        for number in range(250):
            queue.put(job(f"{giver}.{number}"))
            queue.remember(f"due {giver}.{number}")
            queue.wake()

    takers = [threading.Thread(target=take) for _ in range(8)]
    for taker in takers:
        taker.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(give, range(8)))
    wait_until(lambda: len(found_ids) == 4000, 20, "all are taken")
    queue.close()
    for taker in takers:
        taker.join(10)
    assert len(set(found_ids)) == 4000


# The breaker


@pytest.fixture
def breaker(clock: Clock) -> MailBreaker:
    return MailBreaker(Metrics(), clock)


def test_the_breaker_opens_after_failures_in_a_row(breaker: MailBreaker) -> None:
    """A success between them starts the count anew."""
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.faulted(DOWN)
    breaker.accepted()
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.faulted(DOWN)
    assert not breaker.open
    breaker.faulted(DOWN)
    assert breaker.open
    assert breaker.state == "connect refused"


@pytest.mark.parametrize("blame", [Blame.ADDRESS, Blame.MOMENT, Blame.OPERATOR])
def test_a_server_that_answers_is_not_down_whatever_it_answers(breaker: MailBreaker, blame: Blame) -> None:
    """Refusals count as conversations."""
    for _ in range(2 * FAILURES_TO_OPEN):
        breaker.faulted(MailFault(blame, "recipient 450"))
    assert not breaker.open


def test_a_certificate_that_does_not_hold_opens_the_breaker(breaker: MailBreaker) -> None:
    """It is the operator's fault, and it fails for every mail."""
    for _ in range(FAILURES_TO_OPEN):
        breaker.faulted(MailFault(Blame.OPERATOR, "certificate refused", connected=False))
    assert breaker.open
    breaker.reached()
    assert breaker.state == "ok"


def test_trials_come_at_growing_intervals_of_at_most_30_s(breaker: MailBreaker, clock: Clock) -> None:
    """One caller is told to try; failed trials change nothing."""
    for _ in range(FAILURES_TO_OPEN):
        breaker.faulted(DOWN)
    waits = []
    for _ in range(12):
        began = clock.now
        while not breaker.trial_due():
            clock.now += 0.1
        assert not breaker.trial_due()
        breaker.faulted(DOWN)
        waits.append(clock.now - began)
    assert waits[0] < 1
    assert waits == sorted(waits)
    assert LONGEST_TRIAL_S <= waits[-1] < LONGEST_TRIAL_S + 0.2


def test_a_server_that_only_lets_us_in_is_tried_less_and_less_often(
    breaker: MailBreaker, clock: Clock
) -> None:
    """Reached and broken off again: the intervals grow on until a mail is accepted."""
    for _ in range(4):
        for _ in range(FAILURES_TO_OPEN):
            breaker.faulted(DOWN)
        breaker.reached()
    for _ in range(FAILURES_TO_OPEN):
        breaker.faulted(DOWN)
    clock.now += 4
    assert not breaker.trial_due()
    breaker.accepted()
    for _ in range(FAILURES_TO_OPEN):
        breaker.faulted(DOWN)
    clock.now += 0.6
    assert breaker.trial_due()


def test_an_operators_fault_is_shown_until_a_mail_is_accepted(breaker: MailBreaker) -> None:
    """A greeting alone does not prove that the sender is accepted now."""
    breaker.faulted(MailFault(Blame.OPERATOR, "sender 550"))
    breaker.reached()
    assert breaker.state == "sender 550"
    breaker.accepted()
    assert breaker.state == "ok"


def test_what_a_breaker_knows_is_as_old_as_what_it_heard(clock: Clock) -> None:
    """A connection tells nothing new of a refused sender; a mail that is accepted does."""
    breaker = MailBreaker(Metrics(), clock)
    assert (breaker.state, breaker.heard_at) == ("ok", 0)
    breaker.faulted(MailFault(Blame.OPERATOR, "sender 550"))
    refused_at = clock.now
    clock.now += 5
    breaker.reached()
    assert (breaker.state, breaker.heard_at) == ("sender 550", refused_at)
    breaker.accepted()
    assert (breaker.state, breaker.heard_at) == ("ok", clock.now)


# Leases


class Renewals(Outbox):
    """An outbox without a store: remembers who asked for a renewal."""

    def __init__(self) -> None:
        self.lease_ms = 9000
        self.asked: list[str] = []
        self.held = True
        self.away = ""

    def renew(self, user_id: str, owner: str) -> bool:
        self.asked.append(owner)
        if owner == self.away:
            raise StorageUnavailable(code="refused")
        return self.held


def test_a_lease_is_renewed_when_a_third_of_it_is_used_up(clock: Clock) -> None:
    """Not earlier, and then not again before the next third."""
    renewals = Renewals()
    leases = Leases(renewals, clock)
    leases.hold("me", "ada", clock.now)
    for _ in range(9):
        leases.renew()
        clock.now += 1
    assert renewals.asked == ["me", "me"]
    assert leases.ours("me")


def test_a_lease_that_was_not_renewed_in_time_is_not_ours(clock: Clock) -> None:
    """By our clock, from before Redis was asked: never later than Redis thinks."""
    leases = Leases(Renewals(), clock)
    leases.hold("me", "ada", clock.now)
    clock.now += 9
    assert not leases.ours("me")


def test_a_lease_on_a_master_that_is_away_lets_those_of_others_be_renewed(clock: Clock) -> None:
    """It has its next turn after them: else their mails might go twice."""
    renewals = Renewals()
    renewals.away = "lost"
    leases = Leases(renewals, clock)
    for owner in ("lost", "me"):
        leases.hold(owner, "ada", clock.now)
    clock.now += 4
    for _ in range(2):
        with pytest.raises(StorageUnavailable):
            leases.renew()
    assert renewals.asked == ["lost", "me", "lost"]
    clock.now += 6
    assert leases.ours("me")
    assert not leases.ours("lost")


def test_a_lease_that_redis_gave_to_another_is_not_ours(clock: Clock) -> None:
    """Noticed at the renewal."""
    renewals = Renewals()
    renewals.held = False
    leases = Leases(renewals, clock)
    leases.hold("me", "ada", clock.now)
    clock.now += 4
    leases.renew()
    assert not leases.ours("me")
    assert len(leases) == 0


class LongOutage:
    """Everything that a relay works with, after a day without a mail server: each mail is too old, and takes
    its time."""

    lease_ms = 60_000
    open = False

    def __init__(self) -> None:
        self.given_up = 0

    def hold_relay(self, _: str, __: int) -> bool:
        return True

    def now_ms(self) -> int:
        return 2 * GIVE_UP_MAIL_MS

    def due(self, shards: range, _: int, __: int) -> list[Due]:
        return [Due("a" * 26, 0)] * 20 if 0 in shards else []

    def give_up(self, _: str) -> None:
        time.sleep(0.05)
        self.given_up += 1

    def __getattr__(self, _: str) -> Any:
        return lambda *_: False


def test_a_relay_that_gives_up_many_mails_is_no_thread_that_hangs() -> None:
    """Thousands may be too old at once: the service would count as not ready, and be restarted."""
    parts: Any = LongOutage()
    relay = Relay(parts, parts, parts, parts, parts, parts, parts, parts, OFF, silent_s=0.3)
    (thread,) = relay.threads
    relay.start()
    wait_until(lambda: parts.given_up, 10, "the sweep")
    while parts.given_up < 20:
        assert thread.fault == ""
        time.sleep(0.02)
    relay.stop()
