"""Greenlets of requests are killed while they start a sender and while they wait for their mail."""

from gevent import monkey

monkey.patch_all()

import threading
from typing import Any, cast

import gevent

from app.mail.smtp import SmtpMail
from app.services.delivery.breaker import MailBreaker
from app.services.delivery.queue import Job, JobQueue
from app.services.delivery.senders import Senders
from app.services.delivery.worker import Worker

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
    senders = Senders(cast(SmtpMail, None), queue, MailBreaker(), cast(Worker, worker), BOUND)
    for turn in range(3 * BOUND):
        queue.put(Job(f"user{turn}", "owner", leased_at=0.0, asked=True))
        request = gevent.spawn(senders.add)
        gevent.sleep(0)  # it runs up to where it waits for the sender's first step
        request.kill()
        gevent.sleep(0.01)
        assert running() == len(senders.threads) <= BOUND, (running(), len(senders.threads))
    queue.close()
    worker.gate.set()
    senders.stop(5)
    assert running() == 0


def nobody_waits_any_more() -> None:
    """So its address is not erased when the mail server refuses it: nobody would be told."""
    job = Job("user", "owner", leased_at=0.0, asked=True)
    request = gevent.spawn(job.wait, 60)
    gevent.sleep(0)
    request.kill()
    assert not job.refuse()
    assert not job.asked


senders_stay_counted()
nobody_waits_any_more()
