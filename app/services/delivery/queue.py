"""What senders work on: jobs of requests that wait, and addresses whose mail is due."""

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum

from app.domain.registration import Registration

MAX_REMEMBERED = 100_000
"""Addresses a process keeps in mind; beyond them the outbox in Redis knows, and the sweep finds them."""

FAIR_TURN = 4
"""Every so many turns one is for what nobody waits for, however many requests come in."""

DUE = 0.0


class Answer(Enum):
    """What a request is told of its mail."""

    SENT = "sent"
    PENDING = "pending"
    REFUSED = "refused"
    UNKNOWN = "unknown"  # refused for good, but Redis did not say whether the registration is gone


class Job:
    """One address to be mailed. The job of a request holds the registration and a lease on the address.

    `leased_at`: monotonic seconds, from before the lease was asked for. `asked`: a request waits for it.
    """

    def __init__(
        self,
        user_id: str,
        owner: str,
        registration: Registration | None = None,
        leased_at: float = 0.0,
        *,
        asked: bool = False,
    ) -> None:
        self.user_id = user_id
        self.owner = owner
        self.registration = registration
        self.leased_at = leased_at
        self._news = threading.Lock()  # released by the first answer; an Event would cost three times as much
        self._news.acquire()
        self._lock = threading.Lock()
        self.asked = asked
        self._refusing = False
        self._answer: Answer | None = None

    def wait(self, timeout_s: float) -> Answer:
        """What came out, or PENDING after the time-out; then nobody asks any more."""
        if not self._news.acquire(timeout=timeout_s) and not self._leave():
            self._news.acquire()
        return self._answer or Answer.PENDING

    def refuse(self) -> bool:
        """True when the request still waits: then it hears of the refusal, and the record may go."""
        with self._lock:
            self._refusing = self.asked and self._answer is None
            return self._refusing

    def tell(self, answer: Answer) -> None:
        """Answers the request; only the first answer counts."""
        with self._lock:
            if self._answer is None:
                self._answer = answer
                self._news.release()

    def _leave(self) -> bool:
        """The request goes. False while a refusal is being written down: that takes one answer of Redis."""
        with self._lock:
            self.asked = self._refusing
            return not self.asked


class _Rest:
    """A sender that rests: what it is handed, and the bell that wakes it."""

    __slots__ = ("bell", "found")

    def __init__(self) -> None:
        self.found: Job | str | None = None
        self.bell = threading.Lock()
        self.bell.acquire()

    def end(self, found: "Job | str | None") -> None:
        self.found = found
        self.bell.release()


class JobQueue:
    """Jobs of requests that wait first; between them and after them the jobs that nobody waits for, and the
    addresses whose mail is due.

    Work that comes is handed to a resting sender, the one that rested shortest: its connection is the
    freshest, and those that nobody needs grow old and are closed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._patient: deque[Job] = deque()
        self._due: deque[str] = deque()
        self._later: list[tuple[float, str]] = []
        self._remembered: dict[str, float] = {}
        self._resting: list[_Rest] = []
        self._turn = 0
        self.closed = False

    def __len__(self) -> int:
        """Jobs of requests that wait and that nobody has taken."""
        return len(self._jobs)

    @property
    def patient(self) -> int:
        """Jobs that nobody waits for and nobody has taken."""
        return len(self._patient)

    @property
    def remembered(self) -> int:
        return len(self._remembered)

    def put(self, job: Job, *, back: bool = False) -> bool:
        """False when the queue is closed. `back`: another sender had it; it comes before all others."""
        with self._mutex:
            if self.closed:
                return False
            jobs = self._jobs if job.asked else self._patient
            if self._resting:
                self._resting.pop().end(job)
            elif back:
                jobs.appendleft(job)
            else:
                jobs.append(job)
            return True

    def remember(self, user_id: str, wait_s: float = 0.0) -> None:
        """Keeps an address in mind; the earliest time counts."""
        at = self._clock() + wait_s if wait_s > 0 else DUE
        with self._mutex:
            known = self._remembered.get(user_id)
            if self.closed or (known is not None and known <= at):
                return
            if known is None and len(self._remembered) >= MAX_REMEMBERED:
                return
            self._remembered[user_id] = at
            if at == DUE:
                self._due.append(user_id)
            else:
                heapq.heappush(self._later, (at, user_id))

    def take(self, timeout_s: float, *, only_requests: bool = False) -> Job | str | None:
        """A job, or the user id of an address whose mail is due; None after the time-out or the end.

        `only_requests`: only jobs, which hold leases and must not lie about.
        """
        with self._mutex:
            found = self._next(only_requests)
            if found is not None or self.closed:
                return found
            rest = _Rest()
            self._resting.append(rest)
        if not rest.bell.acquire(timeout=timeout_s):
            with self._mutex:
                if rest in self._resting:
                    self._resting.remove(rest)
        return rest.found

    def wake(self) -> None:
        """Makes due whose time has come, and hands what is due to senders that rest."""
        if not (self._due or self._later):
            return
        now = self._clock()
        with self._mutex:
            while self._later and self._later[0][0] <= now:
                at, user_id = heapq.heappop(self._later)
                if self._remembered.get(user_id) == at:
                    self._remembered[user_id] = DUE
                    self._due.append(user_id)
            while self._resting and (found := self._pop_due()) is not None:
                self._resting.pop().end(found)

    def senders_missing(self, *, only_requests: bool) -> int:
        """How many more senders would have something to do now."""
        work = len(self._jobs) + len(self._patient) + (0 if only_requests else len(self._due))
        return max(0, work - len(self._resting))

    def stuck(self, patience_s: float) -> bool:
        """The request at the head has given up by now: whoever came after it would wait in vain."""
        if not self._jobs:
            return False
        with self._mutex:
            return bool(self._jobs) and self._clock() - self._jobs[0].leased_at > patience_s

    def close(self) -> list[Job]:
        """Ends the queue; returns the jobs nobody took."""
        with self._mutex:
            self.closed = True
            left = [*self._jobs, *self._patient]
            self._jobs.clear()
            self._patient.clear()
            self._due.clear()
            self._later.clear()
            while self._resting:
                self._resting.pop().end(None)
            return left

    def _next(self, only_requests: bool) -> Job | str | None:
        self._turn += 1
        ways: tuple[Callable[[], Job | str | None], ...]
        if only_requests:
            ways = self._pop_job, self._pop_patient
        elif self._turn % FAIR_TURN:
            ways = self._pop_job, self._pop_patient, self._pop_due
        elif self._turn // FAIR_TURN % 2:
            ways = self._pop_patient, self._pop_due, self._pop_job
        else:
            ways = self._pop_due, self._pop_patient, self._pop_job
        return next((found for way in ways if (found := way()) is not None), None)

    def _pop_job(self) -> Job | None:
        return self._jobs.popleft() if self._jobs else None

    def _pop_patient(self) -> Job | None:
        return self._patient.popleft() if self._patient else None

    def _pop_due(self) -> str | None:
        while self._due:
            user_id = self._due.popleft()
            if self._remembered.pop(user_id, None) is not None:
                return user_id
        return None
