"""The queue: jobs of requests, and addresses whose mail falls due. Senders take from it."""

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable

from app.domain.registration import Cause, Delivery, Registration
from app.errors import CedulaError
from app.repositories.users import fresh_token

MAX_REMEMBERED = 100_000
"""Addresses that a process remembers. The outbox in Redis knows the others, and the sweep finds them."""

FAIR_TURN = 4
"""Each fourth job taken is one that no request waits for, however many requests come in."""

DUE = 0.0

NO_REQUEST = Cause()


class Job:
    """One address to be mailed.

    The job of a request holds its registration and a lease on the address; otherwise both are still to be
    claimed. `leased_at`: monotonic seconds, from before the lease was asked for; the job waits since then.
    `awaited`: a request waits for the mail; false with `Prefer: respond-async`.
    """

    def __init__(
        self,
        user_id: str,
        owner: str,
        registration: Registration | None = None,
        leased_at: float = 0.0,
        *,
        awaited: bool = False,
        cause: Cause = NO_REQUEST,
    ) -> None:
        self.user_id = user_id
        self.owner = owner
        self.registration = registration
        self.leased_at = leased_at
        self.awaited = awaited
        self.cause = cause
        self._undecided = [None]  # popped once: by the request that gives up, or by the worker that refuses
        self._answered = threading.Event()  # under gevent cheaper than a lock
        self._answer: Delivery | CedulaError | None = None

    def wait(self, timeout_s: float) -> Delivery:
        """The answer; raised where it is an error. PENDING after the time-out: then the request has left."""
        if not self._answered.wait(timeout_s) and not self.leave():
            self._answered.wait()
        answer = self._answer or Delivery.PENDING
        if isinstance(answer, CedulaError):
            raise answer
        return answer

    def leave(self) -> bool:
        """The request gives up. False while its refusal is being written, which takes one answer of Redis."""
        if self._decide():
            self.awaited = False
        return not self.awaited

    def refuse(self) -> bool:
        """True when the request still waits and hears of the refusal, so that the record may be erased."""
        return self.awaited and self._answer is None and self._decide()

    def tell(self, answer: Delivery | CedulaError) -> None:
        """Answers the request; only the first answer counts. Called by one thread at a time."""
        if self._answer is None:
            self._answer = answer
            self._answered.set()

    def _decide(self) -> bool:
        """True for the first caller only: list.pop is atomic (Python's FAQ on thread-safe mutations)."""
        try:
            self._undecided.pop()
        except IndexError:
            return False
        return True


class _Rest:
    """A resting sender: the job that it is handed, and the bell that wakes it."""

    __slots__ = ("bell", "handed")

    def __init__(self) -> None:
        self.handed: Job | None = None
        self.bell = threading.Event()

    def end(self, job: Job | None) -> None:
        self.handed = job
        self.bell.set()


class JobQueue:
    """Awaited jobs first; between and after them the other jobs, and addresses that are due.

    Work goes to the sender that has rested for the shortest time: its connection is the freshest, and surplus
    connections grow old and are closed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._awaited: deque[Job] = deque()
        self._unawaited: deque[Job] = deque()
        self._due: deque[str] = deque()
        self._later: list[tuple[float, str]] = []
        self._remembered: dict[str, tuple[float, Cause]] = {}
        self._resting: list[_Rest] = []
        self._turn = 0
        self.closed = False

    def waiting(self, *, awaited: bool) -> int:
        """How many jobs no sender has taken, of those that are awaited or of the others."""
        return len(self._awaited if awaited else self._unawaited)

    @property
    def resting(self) -> int:
        """Senders that wait for work."""
        return len(self._resting)

    def put(self, job: Job, *, back: bool = False) -> bool:
        """Adds a job; False when the queue is closed. `back`: a sender gives it back, so it is the next."""
        with self._mutex:
            if self.closed:
                return False
            jobs = self._awaited if job.awaited else self._unawaited
            if self._resting:
                self._resting.pop().end(job)
            elif back:
                jobs.appendleft(job)
            else:
                jobs.append(job)
            return True

    def remember(self, user_id: str, wait_s: float = 0.0, cause: Cause = NO_REQUEST) -> None:
        """Makes an address due in `wait_s` seconds, unless it is due earlier already. A sweep knows no cause:
        then the known one stays."""
        at = self._clock() + wait_s if wait_s > 0 else DUE
        with self._mutex:
            known = self._remembered.get(user_id)
            if self.closed or (known is None and len(self._remembered) >= MAX_REMEMBERED):
                return
            if known is not None:
                cause = known[1] if cause is NO_REQUEST else cause
                if known[0] <= at:
                    self._remembered[user_id] = known[0], cause
                    return
            self._remembered[user_id] = at, cause
            if at == DUE:
                self._due.append(user_id)
            else:
                heapq.heappush(self._later, (at, user_id))

    def cause_of(self, user_id: str) -> Cause:
        """The request of this process that has asked last for a mail which is not begun yet. Of those of
        other processes none is known."""
        known = self._remembered.get(user_id)
        return known[1] if known else NO_REQUEST

    def take(self, timeout_s: float, *, only_leased: bool = False) -> Job | None:
        """The next job; None after the time-out, or when the queue is closed.

        `only_leased`: only jobs that hold leases, since a lease must not lie idle.
        """
        with self._mutex:
            found = self._next(only_leased)
            if found is not None or self.closed:
                return found
            rest = _Rest()
            self._resting.append(rest)
        try:
            if not rest.bell.wait(timeout_s):
                self._forget(rest)
        except BaseException:  # the sender is killed: another one gets what it was handed meanwhile
            self._forget(rest)
            if rest.handed is not None:
                self.put(rest.handed, back=True)
            raise
        return rest.handed

    def wake(self) -> None:
        """Makes the addresses due whose time has come, and hands them to senders that rest."""
        if not (self._due or self._later):
            return
        now = self._clock()
        with self._mutex:
            while self._later and self._later[0][0] <= now:
                at, user_id = heapq.heappop(self._later)
                known = self._remembered.get(user_id)
                if known is not None and known[0] == at:
                    self._remembered[user_id] = DUE, known[1]
                    self._due.append(user_id)
            while self._resting and (job := self._pop_due()) is not None:
                self._resting.pop().end(job)

    def senders_missing(self, *, only_leased: bool) -> int:
        """How many more senders would have something to do now."""
        work = len(self._awaited) + len(self._unawaited) + (0 if only_leased else len(self._due))
        return max(0, work - len(self._resting))

    def stuck(self, timeout_s: float) -> bool:
        """The request at the head has given up by now, so one that came after it would wait in vain."""
        try:
            return self._clock() - self._awaited[0].leased_at > timeout_s
        except IndexError:  # nobody waits
            return False

    def close(self) -> list[Job]:
        """Ends the queue; returns the jobs that no sender has taken."""
        with self._mutex:
            self.closed = True
            left = [*self._awaited, *self._unawaited]
            for each in (self._awaited, self._unawaited, self._due, self._later):
                each.clear()
            while self._resting:
                self._resting.pop().end(None)
            return left

    def _forget(self, rest: _Rest) -> None:
        """Hands nothing more to this sender."""
        with self._mutex:
            if rest in self._resting:
                self._resting.remove(rest)

    def _next(self, only_leased: bool) -> Job | None:
        self._turn += 1
        for_others = self._turn % FAIR_TURN == 0 and not only_leased
        if self._awaited and not for_others:
            return self._awaited.popleft()
        due_first = for_others and self._turn // FAIR_TURN % 2 == 0
        if self._unawaited and not (due_first and self._due):
            return self._unawaited.popleft()
        if not only_leased and (job := self._pop_due()) is not None:
            return job
        left = self._awaited or self._unawaited
        return left.popleft() if left else None

    def _pop_due(self) -> Job | None:
        while self._due:
            user_id = self._due.popleft()
            known = self._remembered.pop(user_id, None)
            if known is not None:
                return Job(user_id, fresh_token(), cause=known[1])
        return None
