"""Parts of the delivery of events without Redis and without receivers, for tests of the others."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from app.domain.registration import Event, EventKind
from app.domain.service import Endpoint, Service
from app.repositories.events import Claim, Events, Left, Queue
from app.repositories.guard import Guard
from app.telemetry.metrics import EventOutcome, Metrics
from app.webhook.webhooks import Webhooks
from tests.support.people import ENDPOINT

HOUR_MS = 3_600_000
NOW_MS = 1_790_000_000_000

SHOP = Service(id="shop", events=ENDPOINT)
SILENT = replace(SHOP, events=None)


def queue(number: int = 0, service: str = "shop") -> Queue:
    return Queue(service, f"{number:026}")


class WaitingEvents(Events):
    """Events in memory. Each claim is the next attempt; an event that is tried again is due at once.

    `waits_ms`: for each attempt that was put off. `age_ms`: of all events.
    """

    def __init__(self) -> None:
        self.lists: dict[Queue, list[Event]] = defaultdict(list)
        self.attempts: Counter[str] = Counter()
        self.waits_ms: list[int] = []
        self.states: dict[str, str] = {}
        self.woken: set[str] = set()
        self.off: dict[Queue, int] = {}
        self.looks = 0
        self.age_ms = 0
        self._lock = threading.Lock()
        self._claimed: set[Queue] = set()

    def add(self, at: Queue, count: int = 1) -> None:
        for _ in range(count):
            name = f"{at.user_id}-{len(self.lists[at])}"
            self.lists[at].append(Event(name, EventKind.SENT, NOW_MS, at.user_id, NOW_MS))

    def claim(self, at: Queue) -> Claim | None:
        with self._lock:
            if at in self._claimed or not self.lists[at]:
                return None
            self._claimed.add(at)
            event = self.lists[at][0]
            self.attempts[event.event_id] += 1
            return Claim(event, b"", NOW_MS + self.age_ms, self.attempts[event.event_id])

    def settle(self, at: Queue, claim: Claim, wait_ms: int | None = None) -> Left:
        with self._lock:
            self._claimed.discard(at)
            if claim.event not in self.lists[at]:
                return Left.LOST
            if wait_ms is not None:
                self.waits_ms.append(wait_ms)
                return Left.WAITS
            self.lists[at].remove(claim.event)
            return Left.MORE if self.lists[at] else Left.EMPTY

    def drop(self, at: Queue) -> int:
        return len(self.lists.pop(at, []))

    def put_off(self, queues: Collection[Queue], longest_ms: int) -> None:
        self.off |= dict.fromkeys(queues, longest_ms)

    def queues_of(self, service: str) -> list[Queue]:
        return [at for at in self.lists if at.service == service]

    def wake(self, services: Collection[str], shards: Iterable[int]) -> bool:
        self.woken |= {*services}
        return True

    def receivers(self) -> dict[str, str]:
        self.looks += 1
        return dict(self.states)

    def note_receiver(self, service: str, state: str) -> None:
        self.states[service] = state

    def forget_receivers(self, services: Collection[str]) -> None:
        for service in services:
            self.states.pop(service, None)

    def hold_relay(self, owner: str, ttl_ms: int) -> bool:
        return False


class Posts(Webhooks):
    """Posts nothing: remembers what was to be posted. `answer` is called first, and may raise."""

    def __init__(self, answer: Callable[[Event], None] = lambda _: None) -> None:
        self.answer = answer
        self.posted: list[str] = []
        self.running = self.most_running = 0
        self._lock = threading.Lock()

    def post(self, endpoint: Endpoint, event: Event) -> None:
        assert endpoint is ENDPOINT
        with self._lock:
            self.running += 1
            self.most_running = max(self.running, self.most_running)
        try:
            self.answer(event)
            self.posted.append(event.event_id)
        finally:
            with self._lock:
                self.running -= 1

    def close(self) -> None:
        pass

    def close_idle(self) -> None:
        pass


class Passed(Guard):
    """Redis is ours."""

    def __init__(self) -> None:
        pass

    def check(self) -> None:
        pass


class Counted(Metrics):
    """What became of events, by service and outcome."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: Counter[tuple[str, str]] = Counter()

    def event(self, service_id: str, outcome: EventOutcome, count: int = 1) -> None:
        self.outcomes[service_id, outcome] += count


class Clock:
    """A clock that stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now
