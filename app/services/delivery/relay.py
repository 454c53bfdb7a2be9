"""The relay: one thread in every serving process that keeps leases alive and finds mails that are due.

One process at a time sweeps the outboxes of all shards. A sweep also notes what falls due before the next
one, so that no entry waits for a sweep.
"""

import time
from contextlib import suppress

from app.domain.number import SHARDS
from app.errors import StorageUnavailable
from app.mail.smtp import MailFault, SmtpMail, SmtpSession
from app.repositories.guard import Guard
from app.repositories.outbox import Outbox
from app.repositories.scripts import GIVE_UP_MAIL_MS
from app.repositories.users import fresh_token
from app.services.delivery.breaker import MailBreaker
from app.services.delivery.leases import Leases
from app.services.delivery.queue import JobQueue
from app.services.delivery.senders import Senders
from app.services.delivery.worker import Worker
from app.telemetry.traces import Traces
from app.threads import WatchedThread

BEGIN_AFTER_S = 1.0
"""A process that forks before this serves no requests: it is the master of `gunicorn --preload`."""

TICK_S = 0.2
"""How late a retry can be. A tick without work costs microseconds."""

SHARDS_A_TIME = 100
"""One pipeline: a few hundred microseconds of Redis, ten times a sweep."""

ENTRIES_A_SHARD = 100
"""Of one shard in one sweep: 100,000 entries a sweep in all, more than senders can mail meanwhile."""

STOP_WITHIN_S = 5.0
"""The thread may still wait for an answer of Redis."""

SILENT_S = 60.0
"""A tick ends with a time-out of Redis at the latest; one that lasts longer hangs."""


class Relay:
    """A thread that renews leases, makes due what is due, tries a mail server that was down, and sweeps."""

    def __init__(
        self,
        outbox: Outbox,
        guard: Guard,
        mail: SmtpMail,
        queue: JobQueue,
        breaker: MailBreaker,
        leases: Leases,
        senders: Senders,
        worker: Worker,
        traces: Traces,
        silent_s: float = SILENT_S,
    ) -> None:
        self._outbox = outbox
        self._guard = guard
        self._mail = mail
        self._queue = queue
        self._breaker = breaker
        self._leases = leases
        self._senders = senders
        self._worker = worker
        self._traces = traces
        self._owner = fresh_token()
        self._sweep_s = outbox.lease_ms / 1000 / 2
        self._sweeping = False
        self._next_batch_at = 0.0
        self._next_shard = 0
        self._thread = WatchedThread("outbox-relay", self._run, silent_s=silent_s)
        self._trial: WatchedThread | None = None
        self.begun = False

    @property
    def threads(self) -> list[WatchedThread]:
        return [self._thread] if self._trial is None else [self._thread, self._trial]

    def start(self) -> None:
        """Starts the thread, once; it begins to work after a moment."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and lets another process sweep. May be called again."""
        if self._thread.stopping.is_set():
            return
        self._thread.stop(STOP_WITHIN_S)
        if self.begun:
            with suppress(StorageUnavailable):
                self._outbox.hold_relay(self._owner, 0)

    def _run(self, thread: WatchedThread) -> None:
        if not self.begun and thread.stopping.wait(BEGIN_AFTER_S):
            return
        self.begun = True
        while not thread.stopping.wait(TICK_S):
            thread.beat()
            self._renew()
            self._try_server_if_time()
            self._senders.tend()
            try:
                self._sweep_if_time(thread)
            except StorageUnavailable:
                self._sweeping = False

    def _renew(self) -> None:
        """Where it fails for a lease, others still have to be kept, mails sent and shards swept: Redis may be
        a cluster, and only one of its masters away."""
        with suppress(StorageUnavailable):
            self._leases.renew()

    def _try_server_if_time(self) -> None:
        if (self._trial is None or not self._trial.alive) and self._breaker.trial_due():
            self._trial = WatchedThread("mail-trial", self._try_server)
            self._trial.start()

    def _try_server(self, _: WatchedThread) -> None:
        session = SmtpSession(self._mail)
        try:
            session.probe()
        except MailFault as fault:
            self._breaker.faulted(fault)
        else:
            self._breaker.reached()
        finally:
            session.close()

    def _sweep_if_time(self, thread: WatchedThread) -> None:
        now = time.monotonic()
        if now < self._next_batch_at:
            return
        self._next_batch_at = now + self._sweep_s * SHARDS_A_TIME / SHARDS
        ours = self._outbox.hold_relay(self._owner, int(self._sweep_s * 1000))
        if ours:
            with self._traces.work("sweep"):
                self._sweep(thread, SHARDS_A_TIME if self._sweeping else SHARDS)
        self._sweeping = ours

    def _check_data(self) -> None:
        """A Redis that was emptied has lost its check value, too. While its master is away, what was known
        before holds."""
        try:
            self._guard.check_again()
        except StorageUnavailable:
            if not self._guard.passed:
                raise

    def _sweep(self, thread: WatchedThread, count: int) -> None:
        """Looks through the next shards for what falls due before they are looked through again."""
        if self._next_shard == 0:
            self._check_data()
        now_ms = self._outbox.now_ms()
        horizon_ms = now_ms + int(self._sweep_s * 1000)
        for _ in range(count // SHARDS_A_TIME):
            thread.beat()
            self._renew()  # a silent master holds up each batch for a time-out
            shards = range(self._next_shard, self._next_shard + SHARDS_A_TIME)
            self._next_shard = (self._next_shard + SHARDS_A_TIME) % SHARDS
            for entry in self._outbox.due(shards, horizon_ms, ENTRIES_A_SHARD):
                if now_ms - entry.due_ms > GIVE_UP_MAIL_MS:  # the mail server was away for all that time
                    thread.beat()  # there may be thousands, and Redis may be slow
                    self._give_up(entry.user_id)
                else:
                    self._queue.remember(entry.user_id, (entry.due_ms - now_ms) / 1000)

    def _give_up(self, user_id: str) -> None:
        """Makes a mail that is too old fail. Senders may be waiting for the mail server."""
        try:
            self._worker.give_up(user_id)
        except StorageUnavailable as error:
            if not error.of_one_key:
                raise
            self._outbox.put_off(user_id)
