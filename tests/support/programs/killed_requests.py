"""Greenlets of requests are killed while they start a sender and while they wait for their mail."""

from gevent import monkey

monkey.patch_all()

import threading
from contextlib import suppress
from typing import Any, cast

import gevent

from app.domain.address import Address
from app.domain.registration import Cause, Delivery, Registration, Stored
from app.domain.service import DEFAULT
from app.errors import AddressRefused
from app.mail.messages import Mail
from app.mail.smtp import Blame, MailFault, SmtpMail
from app.repositories.outbox import Settled
from app.services.delivery.breaker import MailBreaker
from app.services.delivery.queue import Job, JobQueue
from app.services.delivery.senders import Senders
from app.services.delivery.worker import Worker
from app.services.messaging import MessagingService
from app.telemetry.metrics import Metrics
from tests.support.waiting import wait_until

BOUND = 2


class SlowWorker:
    """Its mails take until the gate opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def deliver(self, job: Job, session: object, **_: Any) -> None:
        self.gate.wait()


def running() -> int:
    return sum(thread.name == "mail-sender" for thread in threading.enumerate())


def senders_stay_counted() -> None:
    """A sender that was started is one of the bound, whatever becomes of who started it."""
    queue, worker = JobQueue(), SlowWorker()
    senders = Senders(cast(SmtpMail, None), queue, MailBreaker(Metrics()), cast(Worker, worker), BOUND)
    for turn in range(3 * BOUND):
        queue.put(Job(f"user{turn}", "owner", leased_at=0.0, awaited=True))
        request = gevent.spawn(senders.add)
        gevent.sleep(0)  # it runs up to where it waits for the sender's first step
        request.kill()
        gevent.sleep(0.01)
        assert running() == len(senders.threads) <= BOUND, (running(), len(senders.threads))
    queue.close()
    worker.gate.set()
    senders.stop(5)
    assert running() == 0


class Refusing:
    """Messages, a mail server and an outbox: every mail is refused when the gate opens; what is settled
    is noted."""

    lease_ms = 60_000

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.settled: dict[str, Delivery] = {}

    def mail(self, _: Registration) -> Mail:
        return cast(Mail, None)

    def connect(self) -> None:
        self.gate.wait()
        raise MailFault(Blame.ADDRESS, "recipient 550")

    def settle(self, user_id: str, _: str, __: str, delivery: Delivery, **___: Any) -> Settled:
        self.settled[user_id] = delivery
        return Settled(delivery=None if delivery is Delivery.REFUSED else delivery)


def nobody_waits_any_more() -> None:
    """Nobody would hear that the address is refused, so the registration is not erased."""
    parts: Any = Refusing()
    messaging = MessagingService(
        parts,
        parts,
        parts,
        parts,
        connections=3,
        timeout_s=30,
        metrics=Metrics(),
        happened=lambda *_: None,
    )

    def send(user_id: str) -> None:
        address = Address.parse("ada@example.com")
        registration = Registration(user_id, "r", address, "1", "en", 1, DEFAULT)
        with suppress(AddressRefused):
            messaging.send(Stored(registration, user_id), messaging.plan(), Cause())

    def begun(user_id: str, seconds: float) -> gevent.Greenlet:
        request = gevent.spawn(send, user_id)
        gevent.sleep(seconds)
        return request

    begun("starts", 0).kill()  # while it waits for the first step of its sender
    begun("waits", 0.05).kill()
    stays = begun("stays", 0.05)
    parts.gate.set()
    stays.join(5)
    wait_until(lambda: len(parts.settled) == 3, 5)
    assert parts.settled == {
        "starts": Delivery.FAILED,
        "waits": Delivery.FAILED,
        "stays": Delivery.REFUSED,
    }, parts.settled
    messaging.close(5)


senders_stay_counted()
nobody_waits_any_more()
