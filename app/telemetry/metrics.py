"""What the service counts, for Prometheus: facts in, series out.

Counts are numbers in memory; nothing is written here. How the workers of one gunicorn share them:
app/telemetry/board.py. Nothing personal and nothing that a client can choose becomes a label, so the number
of series is bounded. May import the domain and the errors, for the names of what is counted.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.domain.registration import Delivery
from app.errors import PROBLEMS
from app.telemetry.lines import native

CONTENT_TYPE: Final = prometheus_client.exposition.CONTENT_TYPE_PLAIN_0_0_4

Series = dict[tuple[str, ...], list[float]]
"""By the metric's name and the values of its labels. A counter is one number; a histogram the number of
observations in each bucket, those above all buckets, and the sum of what was observed."""

REQUEST_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""A request takes as long as the mail server, and waits MAIL_TIMEOUT (10 s, at most 50 s) for it."""

REGISTRATION_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
"""A few round trips to Redis, each at most REDIS_TIMEOUT (2 s)."""

MAIL_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 600)
"""The final reply to a mail may take ten minutes (RFC 1047)."""

CANDIDATE_BUCKETS: Final = (1, 2, 3, 4, 8, 16, 64, 132, 516, 1028, 3972)
"""1 while the number space is empty, 5 on average when 80 % of it is taken; 3,972 is where we give up."""


DELIVERIES: Final = {
    Delivery.SENT: "sent",  # the mail server accepted it
    Delivery.PENDING: "put_off",  # it is tried again
    Delivery.REFUSED: "refused",  # the address was refused for good
    Delivery.FAILED: "given_up",  # not accepted within 24 hours, or the number's life
}
"""What one attempt to mail a number came to, and its label."""

BUDGETS: Final = {
    "too-many-registrations": "registrations",  # ADDRESS_LIMIT
    "too-many-attempts": "attempts",  # VERIFY_LIMIT
    "too-many-requests": "requests",  # CLIENT_LIMIT
}
"""Which budget was used up, by the problem that says so."""

BLAMES: Final = ("address", "server", "operator", "moment")


COUNTERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "cedula_requests": ("Requests answered.", ("route", "method", "status", "caller")),
    "cedula_problems": ("Answers that were problems (RFC 9457).", ("problem",)),
    "cedula_budgets_refused": ("Requests refused by a used-up budget.", ("budget",)),
    "cedula_deliveries": ("Attempts to mail a number.", ("outcome",)),
    "cedula_mail_faults": ("Mails not accepted, by whose fault it was.", ("blame",)),
    "cedula_thread_restarts": ("Threads that died and were started again.", ("thread",)),
    "cedula_log_lines_dropped": ("Log lines that could not be written.", ()),
}
"""What each counts, and its labels."""

HISTOGRAMS: Final[Mapping[str, tuple[str, tuple[str, ...], tuple[float, ...]]]] = {
    "cedula_request_duration_seconds": ("Time from a request to its answer.", ("route",), REQUEST_BUCKETS_S),
    "cedula_registration_duration_seconds": (
        "Time to store a registration in Redis.",
        (),
        REGISTRATION_BUCKETS_S,
    ),
    "cedula_registration_candidates": (
        "Numbers tried for one registration until a free one was found.",
        (),
        CANDIDATE_BUCKETS,
    ),
    "cedula_mail_duration_seconds": (
        "Time to hand one mail to the mail server, whatever it answered.",
        (),
        MAIL_BUCKETS_S,
    ),
}
"""What each observes, its labels and its buckets."""


@dataclass(frozen=True, slots=True)
class StoreState:
    """What a look at Redis found. `oldest_age_s`: of the mail that has been owed longest, 0 when none is.

    `fill`, `fullest_fill`: the taken share of all numbers and of the fullest shard's, at most.
    """

    outbox_depth: int
    oldest_age_s: float
    fill: float
    fullest_fill: float


class Metrics:
    """Everything that is counted in this process. Each method is a fact, and costs about a microsecond."""

    def __init__(self) -> None:
        # The system's lock, not gevent's: nothing waits while it is held, and it costs a tenth.
        self._lock = native("_thread", "allocate_lock")()
        self.breaker_open = False
        # A series starts at 0, so that Prometheus sees the first event as a rise.
        self._series: Series = {("cedula_log_lines_dropped",): [0]}
        self._series |= {("cedula_problems", slug): [0] for slug in PROBLEMS}
        self._series |= {("cedula_budgets_refused", budget): [0] for budget in BUDGETS.values()}
        self._series |= {("cedula_deliveries", label): [0] for label in DELIVERIES.values()}
        self._series |= {("cedula_mail_faults", blame): [0] for blame in BLAMES}
        for name, (_, labels, buckets) in HISTOGRAMS.items():
            if not labels:
                self._series[name,] = [0] * (len(buckets) + 2)

    def answered(self, route: str, method: str, status: int, seconds: float, caller: str = "") -> None:
        """A request was answered. `route`: the rule, never the path; `method`: one of the known; `caller`:
        the name of the API key, empty without keys."""
        with self._lock:
            self._count("cedula_requests", route, method, str(status), caller)
            self._observe(REQUEST_BUCKETS_S, seconds, "cedula_request_duration_seconds", route)

    def problem(self, slug: str) -> None:
        """A request was answered with this problem."""
        with self._lock:
            self._count("cedula_problems", slug)
            if slug in BUDGETS:
                self._count("cedula_budgets_refused", BUDGETS[slug])

    def registered(self, candidates: int, seconds: float) -> None:
        """A registration was stored, with the last of so many numbers."""
        with self._lock:
            self._observe(CANDIDATE_BUCKETS, candidates, "cedula_registration_candidates")
            self._observe(REGISTRATION_BUCKETS_S, seconds, "cedula_registration_duration_seconds")

    def exhausted(self, candidates: int) -> None:
        """No free number was found among so many."""
        with self._lock:
            self._observe(CANDIDATE_BUCKETS, candidates, "cedula_registration_candidates")

    def mailed(self, seconds: float) -> None:
        """The mail server was handed a mail and has answered, or has not."""
        with self._lock:
            self._observe(MAIL_BUCKETS_S, seconds, "cedula_mail_duration_seconds")

    def delivery(self, outcome: Delivery) -> None:
        """An attempt to mail a number was settled."""
        with self._lock:
            self._count("cedula_deliveries", DELIVERIES[outcome])

    def mail_fault(self, blame: str) -> None:
        """A mail was not accepted."""
        with self._lock:
            self._count("cedula_mail_faults", blame)

    def breaker(self, *, is_open: bool) -> None:
        """The mail server is taken to be down, or up again."""
        self.breaker_open = is_open

    def thread_restarts(self, thread: str, count: int) -> None:
        """A watched thread has died so many more times; 0 makes it known."""
        with self._lock:
            self._count("cedula_thread_restarts", thread, by=count)

    def lines_dropped(self, count: int) -> None:
        """So many more log lines could not be written."""
        with self._lock:
            self._count("cedula_log_lines_dropped", by=count)

    def add(self, earlier: Series) -> None:
        """Goes on from what a worker of earlier times has counted."""
        with self._lock:
            add(self._series, earlier)

    def series(self) -> Series:
        """All that was counted, as of now."""
        with self._lock:
            return {key: [*values] for key, values in self._series.items()}

    def _count(self, *key: str, by: float = 1) -> None:
        values = self._series.get(key)
        if values is None:
            self._series[key] = [by]
        else:
            values[0] += by

    def _observe(self, buckets: tuple[float, ...], value: float, *key: str) -> None:
        values = self._series.get(key)
        if values is None:
            values = self._series[key] = [0] * (len(buckets) + 2)
        values[bisect_left(buckets, value)] += 1
        values[-1] += value


def add(total: Series, more: Series) -> None:
    """Adds up series. What another version of the service counted otherwise is left out."""
    for key, values in more.items():
        mine = total.get(key)
        if mine is not None:
            if len(mine) == len(values):
                total[key] = [a + b for a, b in zip(mine, values, strict=True)]
        elif 0 < len(values) == _size(key):
            total[key] = [*values]


def _size(key: tuple[str, ...]) -> int:
    """How many numbers a series has; 0 for one that is not known."""
    name, labels = key[0] if key else "", len(key) - 1
    if name in COUNTERS and labels == len(COUNTERS[name][1]):
        return 1
    if name in HISTOGRAMS and labels == len(HISTOGRAMS[name][1]):
        return len(HISTOGRAMS[name][2]) + 2
    return 0


def exposition(series: Series, gauges: Iterable[Metric]) -> bytes:
    """Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Families([*_counted(series), *gauges]))
    return prometheus_client.generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _counted(series: Series) -> Iterable[Metric]:
    counters = {
        name: CounterMetricFamily(name, text, labels=labels) for name, (text, labels) in COUNTERS.items()
    }
    histograms = {
        name: HistogramMetricFamily(name, text, labels=labels)
        for name, (text, labels, _) in HISTOGRAMS.items()
    }
    for (name, *labels), values in series.items():
        if name in counters:
            counters[name].add_metric(labels, values[0])
        else:
            bounds = [*map(str, map(float, HISTOGRAMS[name][2])), "+Inf"]
            buckets = list(zip(bounds, accumulate(values[:-1]), strict=True))
            histograms[name].add_metric(labels, buckets, values[-1])
    return [*counters.values(), *histograms.values()]


def store_gauges(store: StoreState | None) -> Iterable[Metric]:
    """What a look at Redis found. `store`: None when Redis is away."""
    yield GaugeMetricFamily(
        "cedula_storage_up", "1 if Redis answers and takes writes.", int(store is not None)
    )
    if store is None:
        return
    yield GaugeMetricFamily("cedula_outbox_depth", "Mails owed.", store.outbox_depth)
    yield GaugeMetricFamily(
        "cedula_outbox_oldest_age_seconds", "Age of the mail that has been owed longest.", store.oldest_age_s
    )
    fill = GaugeMetricFamily(
        "cedula_number_space_fill_ratio", "Share of the numbers that are taken, at most.", labels=["scope"]
    )
    fill.add_metric(["overall"], store.fill)
    fill.add_metric(["fullest_shard"], store.fullest_fill)
    yield fill
