"""What senders work on: jobs of requests that wait, and addresses whose mail is due."""

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum

from app.registrations import Registration

MAX_REMEMBERED = 100_000
"""Addresses a process keeps in mind; beyond them the outbox in Redis knows, and the sweep finds them."""

FAIR_TURN = 4
"""Every so many jobs one is an address that waited, however many requests come in."""

DUE = 0.0


class Answer(Enum):
    """What a request is told of its mail."""

    SENT = "sent"
    PENDING = "pending"
    REFUSED = "refused"
    UNKNOWN = "unknown"  # refused for good, but Redis did not say whether the registration is gone


class Job:
    """One address to be mailed. The job of a request holds the registration and a lease on the address.

    `leased_at`: monotonic seconds, from before the lease was asked for.
    """

    def __init__(
        self, user_id: str, owner: str, registration: Registration | None = None, leased_at: float = 0.0
    ) -> None:
        self.user_id = user_id
        self.owner = owner
        self.registration = registration
        self.leased_at = leased_at
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._asked = registration is not None
        self._refusing = False
        self._answer = Answer.PENDING

    def wait(self, timeout_s: float) -> Answer:
        """What came out, or PENDING after the time-out; then nobody asks any more."""
        if not self._done.wait(timeout_s) and not self._leave():
            self._done.wait()
        return self._answer

    def refuse(self) -> bool:
        """True when the request still waits: then it hears of the refusal, and the record may go."""
        with self._lock:
            self._refusing = self._asked and not self._done.is_set()
            return self._refusing

    def tell(self, answer: Answer) -> None:
        """Answers the request; only the first answer counts."""
        if not self._done.is_set():
            self._answer = answer
            self._done.set()

    def _leave(self) -> bool:
        """The request goes. False while a refusal is being written down: that takes one answer of Redis."""
        with self._lock:
            self._asked = self._refusing
            return not self._asked


class JobQueue:
    """Jobs of requests first; between them and after them the addresses whose mail is due."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._due: deque[str] = deque()
        self._later: list[tuple[float, str]] = []
        self._remembered: dict[str, float] = {}
        self._resting = 0
        self._turn = 0
        self.closed = False

    def __len__(self) -> int:
        """Jobs of requests that nobody has taken."""
        return len(self._jobs)

    @property
    def remembered(self) -> int:
        return len(self._remembered)

    def put(self, job: Job) -> bool:
        """False when the queue is closed."""
        with self._condition:
            if not self.closed:
                self._jobs.append(job)
                self._condition.notify()
            return not self.closed

    def put_back(self, job: Job) -> bool:
        """For another sender, before all others. False when the queue is closed."""
        with self._condition:
            if not self.closed:
                self._jobs.appendleft(job)
                self._condition.notify()
            return not self.closed

    def remember(self, user_id: str, wait_s: float = 0.0) -> None:
        """Keeps an address in mind; the earliest time counts."""
        at = self._clock() + wait_s if wait_s > 0 else DUE
        with self._condition:
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
        """A job, or the user id of an address whose mail is due; None after the time-out or the end."""
        with self._condition:
            found = self._next(only_requests)
            if found is None and not self.closed:
                self._resting += 1
                self._condition.wait(timeout_s)
                self._resting -= 1
                found = self._next(only_requests)
            return found

    def wake(self) -> None:
        """Makes due whose time has come, and wakes senders for them."""
        now = self._clock()
        with self._condition:
            while self._later and self._later[0][0] <= now:
                at, user_id = heapq.heappop(self._later)
                if self._remembered.get(user_id) == at:
                    self._remembered[user_id] = DUE
                    self._due.append(user_id)
            self._condition.notify(min(len(self._due), self._resting))

    def senders_missing(self, *, only_requests: bool) -> int:
        """How many more senders would have something to do now."""
        work = len(self._jobs) + (0 if only_requests else len(self._due))
        return max(0, work - self._resting)

    def stuck(self, patience_s: float) -> bool:
        """The request at the head has given up by now: whoever came after it would wait in vain."""
        with self._condition:
            return bool(self._jobs) and self._clock() - self._jobs[0].leased_at > patience_s

    def close(self) -> list[Job]:
        """Ends the queue; returns the jobs nobody took."""
        with self._condition:
            self.closed = True
            left = list(self._jobs)
            self._jobs.clear()
            self._due.clear()
            self._later.clear()
            self._condition.notify_all()
            return left

    def _next(self, only_requests: bool) -> Job | str | None:
        self._turn += 1
        due_first = self._turn % FAIR_TURN == 0
        if self._jobs and (only_requests or not due_first):
            return self._jobs.popleft()
        if not only_requests and (user_id := self._pop_due()) is not None:
            return user_id
        return self._jobs.popleft() if self._jobs else None

    def _pop_due(self) -> str | None:
        while self._due:
            user_id = self._due.popleft()
            if self._remembered.pop(user_id, None) is not None:
                return user_id
        return None
