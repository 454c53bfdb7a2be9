"""The parts of delivery for themselves: jobs, breaker, leases, one SMTP session."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import flask
import pytest

from app.errors import SettingsError
from app.mail.messages import Mail
from app.mail.smtp import MAX_MAILS, Blame, MailFault, SmtpMail, SmtpSession
from app.services.delivery.breaker import FAILURES_TO_OPEN, LONGEST_TRIAL_S, MailBreaker
from app.services.delivery.leases import Leases
from app.services.delivery.queue import MAX_REMEMBERED, Answer, Job, JobQueue
from tests.support.smtp import ScriptedSmtp, say
from tests.support.waiting import wait_until

MAIL = Mail("no-reply@example.com", "ada@example.com", b"Subject: x\r\n\r\nx\r\n")
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


def job(name: str = "a", *, asked: bool = True) -> Job:
    return Job(name, "owner", leased_at=1000.0, asked=asked)


# Jobs


def test_a_request_that_waits_hears_the_first_answer_only() -> None:
    """A job that goes on with a replacement cannot change what was said."""
    one = job()
    one.tell(Answer.SENT)
    one.tell(Answer.REFUSED)
    assert one.wait(0) is Answer.SENT


def test_a_refusal_counts_only_while_its_request_waits() -> None:
    """After the time-out, or after an answer, nothing may be erased."""
    left = job()
    assert left.wait(0) is Answer.PENDING
    assert not left.refuse()
    told = job()
    told.tell(Answer.PENDING)
    assert not told.refuse()
    assert not job(asked=False).refuse()


def test_a_request_waits_on_while_its_refusal_is_written_down() -> None:
    """Else the record would go although the answer was 202."""
    one = job()
    assert one.refuse()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(one.wait, 0.01)
        threading.Event().wait(0.1)
        assert not waiting.done()
        one.tell(Answer.REFUSED)
        assert waiting.result(5) is Answer.REFUSED


# The queue


def test_requests_come_before_the_backlog_and_the_backlog_is_not_starved(queue: JobQueue) -> None:
    """Of four turns one is the backlog's."""
    for number in range(8):
        queue.put(job(f"request{number}"))
        queue.remember(f"due{number}")
    taken = [queue.take(0) for _ in range(8)]
    assert sum(isinstance(each, Job) for each in taken) == 6
    assert [each for each in taken if isinstance(each, str)] == ["due0", "due1"]


def test_nothing_that_nobody_waits_for_starves(queue: JobQueue) -> None:
    """Requests come without end; of eight turns one is a patient job's and one an address's."""
    for number in range(8):
        queue.put(job(f"request{number}"))
    queue.put(job("patient", asked=False))
    queue.remember("due")
    taken = [queue.take(0) for _ in range(8)]
    assert [each if isinstance(each, str) else each.user_id for each in taken if each] == [
        "request0", "request1", "request2", "patient", "request3", "request4", "request5", "due"
    ]  # fmt: skip


def test_a_job_that_nobody_waits_for_comes_after_those_that_somebody_waits_for(queue: JobQueue) -> None:
    """`respond-async` must not make others wait."""
    queue.put(job("patient", asked=False))
    for number in range(3):
        queue.put(job(f"request{number}"))
    assert [each.user_id for _ in range(4) if isinstance(each := queue.take(0), Job)] == [
        "request0", "request1", "request2", "patient"
    ]  # fmt: skip


def test_only_requests_are_taken_while_the_mail_server_is_down(queue: JobQueue) -> None:
    """They are answered; the backlog waits for the server."""
    queue.remember("due")
    queue.put(job())
    queue.put(job(asked=False))  # holds a lease, which it must give back
    assert queue.senders_missing(only_requests=True) == 2
    assert isinstance(queue.take(0, only_requests=True), Job)
    assert isinstance(queue.take(0, only_requests=True), Job)
    assert queue.take(0, only_requests=True) is None
    assert queue.take(0) == "due"


def test_an_address_is_remembered_once_and_for_its_earliest_time(queue: JobQueue, clock: Clock) -> None:
    """However often and for whatever reasons it is named."""
    queue.remember("a", 60)
    queue.remember("a", 5)
    queue.remember("a", 30)
    assert queue.remembered == 1
    clock.now += 5
    queue.wake()
    assert queue.take(0) == "a"
    clock.now += 100
    queue.wake()
    assert queue.take(0) is None
    assert queue.remembered == 0


def test_a_process_remembers_no_more_than_a_bound(queue: JobQueue) -> None:
    """The outbox in Redis knows the rest."""
    for number in range(MAX_REMEMBERED + 10):
        queue.remember(str(number), 10)
    assert queue.remembered == MAX_REMEMBERED


def test_senders_are_missing_where_work_outnumbers_those_that_rest(queue: JobQueue) -> None:
    """A job that a resting sender got asks for no other; the second one does."""
    with ThreadPoolExecutor(1) as pool:
        resting = pool.submit(queue.take, 5)
        wait_until(lambda: len(queue._resting) == 1)
        first = job("first")
        queue.put(first)
        assert queue.senders_missing(only_requests=False) == 0
        queue.put(job("second"))
        assert queue.senders_missing(only_requests=False) == 1
        assert resting.result(5) is first


def test_a_queue_whose_head_was_given_up_is_stuck(queue: JobQueue, clock: Clock) -> None:
    """Then nobody who comes later is made to wait."""
    queue.put(job())
    assert not queue.stuck(10)
    clock.now += 11
    assert queue.stuck(10)


def test_a_closed_queue_gives_back_its_jobs_and_takes_no_more(queue: JobQueue) -> None:
    """So that their leases can be let go."""
    one, other = job(), job(asked=False)
    queue.put(one)
    queue.put(other)
    assert queue.close() == [one, other]
    assert not queue.put(job())
    assert queue.take(5) is None


@pytest.mark.parametrize("patience_s", [5, 0.0001])
def test_every_job_is_taken_once_when_many_put_and_take(queue: JobQueue, patience_s: float) -> None:
    """8 takers, 8 givers, 4,000 jobs, none lost and none twice, also where takers give up just then."""
    taken: list[str] = []

    def take() -> None:
        while not queue.closed:
            if found := queue.take(patience_s):
                taken.append(found.user_id if isinstance(found, Job) else found)

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
    wait_until(lambda: len(taken) == 4000, 20, "all are taken")
    queue.close()
    for taker in takers:
        taker.join(10)
    assert len(set(taken)) == 4000


# The breaker


@pytest.fixture
def breaker(clock: Clock) -> MailBreaker:
    return MailBreaker(clock)


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


# Leases


class Renewals:
    """Stands in for the outbox: remembers who asked for a renewal."""

    lease_ms = 9000

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.held = True

    def renew(self, user_id: str, owner: str) -> bool:
        self.asked.append(owner)
        return self.held


def test_a_lease_is_renewed_when_a_third_of_it_is_used_up(clock: Clock) -> None:
    """Not earlier, and then not again before the next third."""
    renewals = Renewals()
    leases = Leases(renewals, clock)  # type: ignore[arg-type]
    leases.hold("me", "ada", clock.now)
    for _ in range(9):
        leases.renew()
        clock.now += 1
    assert renewals.asked == ["me", "me"]
    assert leases.ours("me")


def test_a_lease_that_was_not_renewed_in_time_is_not_ours(clock: Clock) -> None:
    """By our clock, from before Redis was asked: never later than Redis thinks."""
    leases = Leases(Renewals(), clock)  # type: ignore[arg-type]
    leases.hold("me", "ada", clock.now)
    clock.now += 9
    assert not leases.ours("me")


def test_a_lease_that_redis_gave_to_another_is_not_ours(clock: Clock) -> None:
    """Noticed at the renewal."""
    renewals = Renewals()
    renewals.held = False
    leases = Leases(renewals, clock)  # type: ignore[arg-type]
    leases.hold("me", "ada", clock.now)
    clock.now += 4
    leases.renew()
    assert not leases.ours("me")
    assert len(leases) == 0


# One session with a mail server


@pytest.fixture
def smtp_session(smtp: ScriptedSmtp) -> Iterator[SmtpSession]:
    app = flask.Flask("mail")
    app.config.update(MAIL_SERVER="127.0.0.1", MAIL_PORT=smtp.port)
    session = SmtpSession(SmtpMail(app, timeout_s=1.0))
    yield session
    session.close()


def test_a_mail_that_may_not_go_any_more_is_not_handed_over(
    smtp: ScriptedSmtp, smtp_session: SmtpSession
) -> None:
    """Asked after DATA was accepted; the connection is given up, so nothing can be taken for the mail."""
    with pytest.raises(MailFault) as raised:
        smtp_session.send(MAIL, lambda: False)
    assert (raised.value.blame, raised.value.code) == (Blame.MOMENT, "lease lost")
    wait_until(lambda: not smtp.open_connections)
    assert smtp.contents == []
    smtp_session.send(MAIL)
    assert len(smtp.mails) == 1


def test_envelope_and_data_go_in_one_write(smtp: ScriptedSmtp, smtp_session: SmtpSession) -> None:
    """RFC 2920, where the server offers it; answers come in turn."""
    smtp_session.send(MAIL)
    smtp_session.send(MAIL)
    assert smtp.pipelined == 2
    assert [mail.recipient for mail in smtp.mails] == ["ada@example.com"] * 2


def test_a_connection_is_made_anew_after_many_mails(smtp: ScriptedSmtp, smtp_session: SmtpSession) -> None:
    """So that load balancers and changed addresses come to bear."""
    for _ in range(MAX_MAILS + 1):
        smtp_session.send(MAIL)
    assert smtp.connections == 2
    assert len(smtp.mails) == MAX_MAILS + 1


@pytest.mark.parametrize(
    ("reply", "blame"),
    [
        ("550 5.1.1 x", Blame.ADDRESS),
        ("550 5.1.2 x", Blame.ADDRESS),
        ("550 5.1.3 x", Blame.ADDRESS),
        ("550 5.1.6 x", Blame.ADDRESS),
        ("556 5.1.10 x", Blame.ADDRESS),
        ("550 5.2.1 x", Blame.ADDRESS),
        ("550", Blame.ADDRESS),
        ("551 x", Blame.ADDRESS),
        ("553 x", Blame.ADDRESS),
        ("550 5.1.7 x", Blame.OPERATOR),
        ("550 5.1.8 x", Blame.OPERATOR),
        ("550 5.7.1 x", Blame.OPERATOR),
        ("554 5.7.606 x", Blame.OPERATOR),
        ("530 x", Blame.OPERATOR),
        ("450 4.1.1 x", Blame.MOMENT),
        ("450 5.1.1 x", Blame.MOMENT),
        ("552 5.2.2 x", Blame.MOMENT),
        ("554 x", Blame.MOMENT),
        ("550 5.1.11 x", Blame.MOMENT),
        ("550 5.0.0 x", Blame.MOMENT),
        ("501 5.1.1x", Blame.MOMENT),
    ],
)
def test_who_is_to_blame_for_a_refused_recipient(
    reply: str, blame: Blame, smtp: ScriptedSmtp, smtp_session: SmtpSession
) -> None:
    """Only these codes are the address's fault; 5.7.x and the sender's codes are the operator's."""
    smtp.script["rcpt"] = say(reply)
    with pytest.raises(MailFault) as raised:
        smtp_session.send(MAIL)
    assert raised.value.blame is blame


def test_a_file_without_certificates_stops_the_start() -> None:
    """MAIL_CA_FILE that names the wrong file is a wrong setting."""
    with pytest.raises(SettingsError, match="MAIL_CA_FILE"):
        SmtpMail(flask.Flask("mail"), 1.0, __file__)
