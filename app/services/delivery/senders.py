"""The senders: a bounded number of threads, each with a kept connection, that work on the queue."""

import threading
import time
from collections.abc import Callable

import structlog

from app.mail.smtp import MAX_IDLE_S, SmtpMail, SmtpSession
from app.services.delivery.breaker import MailBreaker
from app.services.delivery.queue import JobQueue
from app.services.delivery.worker import Crowded, Worker
from app.threads import WatchedThread, stop_all

ENOUGH_FOR_S = 30.0
"""No sender is added for so long after a mail server said that it takes no more connections."""

log = structlog.get_logger()


class Sender:
    """One thread and its connection. `busy`: a mail is in its hands."""

    def __init__(self, mail: SmtpMail, work: Callable[["Sender"], None]) -> None:
        self.session = SmtpSession(mail)
        self.busy = False
        self.thread = WatchedThread("mail-sender", lambda _: work(self))


class Senders:
    """Starts senders while there is work for more of them, at most `bound`."""

    def __init__(
        self, mail: SmtpMail, queue: JobQueue, breaker: MailBreaker, worker: Worker, bound: int
    ) -> None:
        self._mail = mail
        self._queue = queue
        self._breaker = breaker
        self._worker = worker
        self._bound = bound
        self._senders: list[Sender] = []
        self._starting = threading.Lock()
        self._enough_until = 0.0

    @property
    def threads(self) -> list[WatchedThread]:
        return [sender.thread for sender in self._senders]

    def tend(self) -> None:
        """Forgets senders that have ended, hands what is due to those that rest, and starts missing ones."""
        with self._starting:
            self._senders = [sender for sender in self._senders if sender.thread.alive]
        if self._breaker.open:
            self._enough_until = 0.0  # once it is back, it may take more
        else:
            self._queue.wake()
        self.add(self._bound)

    def add(self, most: int = 1) -> None:
        """Starts at most so many senders, as far as there is work for them."""
        if len(self._senders) >= self._bound:
            return
        missing = min(most, self._queue.senders_missing(only_leased=self._breaker.open))
        if not missing or (self._senders and time.monotonic() < self._enough_until):
            return
        with self._starting:
            for _ in range(min(missing, self._bound - len(self._senders))):
                sender = Sender(self._mail, self._work)
                self._senders.append(sender)  # first: the thread may start although we are killed
                try:
                    sender.thread.start()
                except RuntimeError:  # the system has no more threads; those that run go on
                    self._senders.remove(sender)
                    log.warning("sender_not_started", senders=len(self._senders))
                    return

    def stop(self, timeout_s: float) -> None:
        """Waits for the mails in hand; the queue is closed already."""
        stop_all(self.threads, timeout_s)

    def _work(self, sender: Sender) -> None:
        session = sender.session
        session.close()  # a sender that died and was started again does not trust its old connection
        while not self._queue.closed:
            job = self._queue.take(MAX_IDLE_S, only_leased=self._breaker.open)
            if job is None:
                session.close_if_idle()
                continue
            sender.busy = True
            try:
                self._worker.deliver(job, session)
            except Crowded:
                if self._is_only_one(sender):
                    self._worker.deliver(job, session, only=True)
                    continue
                if not self._queue.put(job, back=True):
                    self._worker.give_back(job)
                self._retire(sender)
                return
            finally:
                sender.busy = False
        session.close()

    def _is_only_one(self, sender: Sender) -> bool:
        """No other sender has a connection, or is just trying to get one."""
        others = [other for other in self._senders if other is not sender]
        return not any(other.session.connected or other.busy for other in others)

    def _retire(self, sender: Sender) -> None:
        """One sender less, and no new ones for a while."""
        with self._starting:
            self._senders.remove(sender)
            self._enough_until = time.monotonic() + ENOUGH_FOR_S
        log.warning("mail_connections_limited", connections=len(self._senders))
