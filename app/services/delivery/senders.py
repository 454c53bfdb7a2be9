"""The senders: a bounded number of threads, each with a kept connection, that work on the queue."""

import threading
import time
from typing import NamedTuple

import structlog

from app.mail.smtp import MAX_IDLE_S, SmtpMail, SmtpSession
from app.services.delivery.breaker import MailBreaker
from app.services.delivery.queue import JobQueue
from app.services.delivery.worker import Crowded, Worker
from app.threads import WatchedThread

ENOUGH_FOR_S = 30.0
"""So long no sender is added after a mail server said that it takes no more connections."""

log = structlog.get_logger()


class _Sender(NamedTuple):
    thread: WatchedThread
    session: SmtpSession


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
        self._senders: list[_Sender] = []
        self._busy: set[SmtpSession] = set()
        self._starting = threading.Lock()
        self._enough_until = 0.0

    @property
    def threads(self) -> list[WatchedThread]:
        return [sender.thread for sender in self._senders]

    def tend(self) -> None:
        """Lets go of senders that have ended, and starts as many as find something to do."""
        with self._starting:
            self._senders = [sender for sender in self._senders if sender.thread.alive]
        if self._breaker.open:
            self._enough_until = 0.0  # a server that is down says nothing of how many it takes
        else:
            self._queue.wake()
        self.add(self._bound)

    def add(self, most: int = 1) -> None:
        """Starts senders that find something to do."""
        if len(self._senders) >= self._bound:
            return
        missing = min(most, self._queue.senders_missing(only_leased=self._breaker.open))
        if not missing or (self._senders and time.monotonic() < self._enough_until):
            return
        with self._starting:
            for _ in range(min(missing, self._bound - len(self._senders))):
                if not self._start():
                    return

    def stop(self, timeout_s: float) -> None:
        """Waits for the mails in hand; the queue is closed already."""
        deadline = time.monotonic() + timeout_s
        for sender in self._senders:
            sender.thread.stop(max(0.0, deadline - time.monotonic()))

    def _start(self) -> bool:
        session = SmtpSession(self._mail)
        thread = WatchedThread("mail-sender", lambda thread: self._work(thread, session))
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads; those that run go on
            log.warning("sender_not_started", senders=len(self._senders))
            return False
        self._senders.append(_Sender(thread, session))
        return True

    def _work(self, thread: WatchedThread, session: SmtpSession) -> None:
        session.close()  # in its next life a sender does not trust what it held
        while not self._queue.closed:
            job = self._queue.take(MAX_IDLE_S, only_leased=self._breaker.open)
            if job is None:
                session.close_if_idle()
                continue
            self._busy.add(session)
            try:
                self._worker.deliver(job, session)
            except Crowded:
                if self._others(session):
                    if not self._queue.put(job, back=True):
                        self._worker.give_back(job)
                    self._retire(thread)
                    return
                self._worker.deliver(job, session, only=True)
            finally:
                self._busy.discard(session)
        session.close()

    def _others(self, session: SmtpSession) -> bool:
        """Whether other senders have a connection, or are about to find out."""
        others = (sender.session for sender in self._senders if sender.session is not session)
        return any(other.connected or other in self._busy for other in others)

    def _retire(self, thread: WatchedThread) -> None:
        """One sender less, and no new ones for a while."""
        with self._starting:
            self._senders = [sender for sender in self._senders if sender.thread is not thread]
            self._enough_until = time.monotonic() + ENOUGH_FOR_S
        log.warning("mail_connections_limited", connections=len(self._senders))
