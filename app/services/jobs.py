"""What senders work on: jobs that requests put here, and addresses whose time comes later."""

import heapq
import threading
import time
from collections import deque
from enum import Enum

from app.registrations import Registration

MAX_REMEMBERED = 100_000
"""Addresses a process keeps in mind; beyond them the outbox in Redis knows, and the sweep finds them."""

FAIR_TURN = 4
"""Every so many jobs one is an address that waited, however many requests come in."""


class Answer(Enum):
    """What a request is told of its mail."""

    SENT = "sent"
    PENDING = "pending"
    REFUSED = "refused"


class Job:
    """One address to be mailed. A job from a request holds the registration and a fresh lease."""

    def __init__(
        self,
        user_id: str,
        owner: str,
        registration: Registration | None = None,
        lease_until: float = 0.0,
    ) -> None:
        self.user_id = user_id
        self.owner = owner
        self.registration = registration
        self.lease_until = lease_until
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._asked = registration is not None
        self._refusing = False
        self._answer = Answer.PENDING

    def wait(self, timeout_s: float) -> Answer:
        """What came out, or PENDING after the time-out; then nobody asks any more."""
        if not self._done.wait(timeout_s):
            with self._lock:
                self._asked = self._asked and self._refusing
            if self._asked:  # the refusal is being written down; that takes one answer of Redis
                self._done.wait()
        return self._answer

    def abandon(self) -> None:
        """Nobody waits for this job."""
        self._asked = False

    def refuse(self) -> bool:
        """True when the request still waits: then it hears of the refusal, and the record may go."""
        with self._lock:
            self._refusing = self._asked
        return self._refusing

    def tell(self, answer: Answer) -> None:
        """Answers the request; only the first answer counts."""
        if not self._done.is_set():
            self._answer = answer
            self._done.set()


class JobQueue:
    """Jobs of requests first; between them and after them the addresses whose time has come."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._later: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}
        self._turn = 0
        self.waiting = 0
        self.closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def remembered(self) -> int:
        return len(self._due)

    def put(self, job: Job) -> None:
        with self._condition:
            self._jobs.append(job)
            self._condition.notify()

    def remember(self, user_id: str, wait_s: float) -> None:
        """Keeps an address in mind; the earliest time counts."""
        at = time.monotonic() + wait_s
        with self._condition:
            if self._due.get(user_id, at + 1) <= at or len(self._due) >= MAX_REMEMBERED:
                return
            self._due[user_id] = at
            heapq.heappush(self._later, (at, user_id))

    def take(self, timeout_s: float, *, only_requests: bool) -> Job | str | None:
        """A job, or the user id of an address whose time has come; None after the time-out or the end."""
        with self._condition:
            found = self._next(only_requests)
            if found is None and not self.closed:
                self.waiting += 1
                self._condition.wait(timeout_s)
                self.waiting -= 1
                found = self._next(only_requests)
            return found

    def wake(self) -> int:
        """Wakes as many senders as addresses are due; returns how many those are, at most the queue's."""
        with self._condition:
            now = time.monotonic()
            due = sum(1 for at, _ in self._later[:64] if at <= now)
            self._condition.notify(due)
            return due

    def close(self) -> list[Job]:
        """Ends the queue; returns the jobs nobody took."""
        with self._condition:
            self.closed = True
            left = list(self._jobs)
            self._jobs.clear()
            self._later.clear()
            self._condition.notify_all()
            return left

    def _next(self, only_requests: bool) -> Job | str | None:
        self._turn += 1
        waited_first = not only_requests and self._turn % FAIR_TURN == 0
        if self._jobs and not waited_first:
            return self._jobs.popleft()
        if not only_requests and (user_id := self._pop_due()) is not None:
            return user_id
        return self._jobs.popleft() if self._jobs else None

    def _pop_due(self) -> str | None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            at, user_id = heapq.heappop(self._later)
            if self._due.get(user_id) == at:
                del self._due[user_id]
                return user_id
        return None
