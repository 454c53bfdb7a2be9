"""What the service counts, for Prometheus: facts in, one text out.

Nothing personal and nothing a client can choose becomes a label, so the number of series is bounded.

Where gunicorn's workers share PROMETHEUS_MULTIPROC_DIR (see gunicorn.conf.py), each writes files of its own
there and any of them answers for all. Without it a process tells what it has counted itself.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.domain.registration import Delivery
from app.errors import PROBLEMS

CONTENT_TYPE: Final = prometheus_client.exposition.CONTENT_TYPE_PLAIN_0_0_4

SHARED_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
WORKER_SLOT: Final = "CEDULA_WORKER_SLOT"
"""Number of the worker among its siblings, set by gunicorn.conf.py. Files are named by it rather than by
the process id: the worker that takes a dead one's place goes on with its files, so their number is bounded
however often workers are renewed, and counters never go back."""

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
    """Everything that is counted. Each method is a fact, and costs a few microseconds."""

    def __init__(self) -> None:
        _share_files()
        self._registry = registry = CollectorRegistry()
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._requests = Counter(
            "cedula_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "cedula_request_duration_seconds",
            "Time from a request to its answer.",
            ["route"],
            buckets=REQUEST_BUCKETS_S,
            registry=registry,
        )
        self._problems = Counter(
            "cedula_problems", "Answers that were problems (RFC 9457).", ["problem"], registry=registry
        )
        self._budgets = Counter(
            "cedula_budgets_refused", "Requests refused by a used-up budget.", ["budget"], registry=registry
        )
        self._registration_seconds = Histogram(
            "cedula_registration_duration_seconds",
            "Time to store a registration in Redis.",
            buckets=REGISTRATION_BUCKETS_S,
            registry=registry,
        )
        self._candidates = Histogram(
            "cedula_registration_candidates",
            "Numbers tried for one registration until a free one was found.",
            buckets=CANDIDATE_BUCKETS,
            registry=registry,
        )
        self._mail_seconds = Histogram(
            "cedula_mail_duration_seconds",
            "Time to hand one mail to the mail server, whatever it answered.",
            buckets=MAIL_BUCKETS_S,
            registry=registry,
        )
        self._deliveries = Counter(
            "cedula_deliveries", "Attempts to mail a number.", ["outcome"], registry=registry
        )
        self._mail_faults = Counter(
            "cedula_mail_faults", "Mails not accepted, by whose fault it was.", ["blame"], registry=registry
        )
        self._breaker = Gauge(
            "cedula_mail_breaker_open",
            "1 while this process takes the mail server to be down.",
            registry=registry,
            multiprocess_mode="liveall",
        )
        # Children are looked up once: a series starts at 0, so that the first event counts as a rise.
        self._problem = {slug: self._problems.labels(slug) for slug in PROBLEMS}
        self._budget = {slug: self._budgets.labels(budget) for slug, budget in BUDGETS.items()}
        self._delivery = {each: self._deliveries.labels(label) for each, label in DELIVERIES.items()}
        self._blame = {blame: self._mail_faults.labels(blame) for blame in BLAMES}
        self._answer: dict[tuple[str, str, int], Counter] = {}
        self._route: dict[str, Histogram] = {}

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered. `route`: the rule, never the path; `method`: one of the known."""
        key = (route, method, status)
        answers = self._answer.get(key)
        if answers is None:
            answers = self._answer[key] = self._requests.labels(route, method, str(status))
        answers.inc()
        duration = self._route.get(route)
        if duration is None:
            duration = self._route[route] = self._request_seconds.labels(route)
        duration.observe(seconds)

    def problem(self, slug: str) -> None:
        """A request was answered with this problem."""
        self._problem[slug].inc()
        if slug in self._budget:
            self._budget[slug].inc()

    def registered(self, candidates: int, seconds: float) -> None:
        """A registration was stored, with the last of so many numbers."""
        self._candidates.observe(candidates)
        self._registration_seconds.observe(seconds)

    def exhausted(self, candidates: int) -> None:
        """No free number was found among so many."""
        self._candidates.observe(candidates)

    def mailed(self, seconds: float) -> None:
        """The mail server was handed a mail and has answered, or has not."""
        self._mail_seconds.observe(seconds)

    def delivery(self, outcome: Delivery) -> None:
        """An attempt to mail a number was settled."""
        self._delivery[outcome].inc()

    def mail_fault(self, blame: str) -> None:
        """A mail was not accepted."""
        self._blame[blame].inc()

    def breaker(self, *, is_open: bool) -> None:
        """The mail server is taken to be down, or up again."""
        self._breaker.set(is_open)

    def exposition(self, store: StoreState | None) -> bytes:
        """All metrics of all processes, in Prometheus' text format. `store`: None when Redis is away."""
        answer = CollectorRegistry()
        if SHARED_FOLDER in os.environ:
            MultiProcessCollector(answer)  # type: ignore[no-untyped-call]
        else:
            answer.register(_Families(self._registry.collect()))
        answer.register(_Families(_store_families(store)))
        return prometheus_client.generate_latest(answer)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _store_families(store: StoreState | None) -> Iterable[Metric]:
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


_file_name = ""


def _share_files() -> None:
    """Lets this process write its own files in the shared folder, if there is one.

    The client library chooses between memory and files when it is imported, and names files by process.
    """
    folder = os.environ.get(SHARED_FOLDER)
    if not folder or _file_name:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    _name_files()
    os.register_at_fork(after_in_child=_name_files)
    values.ValueClass = values.MultiProcessValue(lambda: _file_name)  # type: ignore[no-untyped-call]


def _name_files() -> None:
    global _file_name  # noqa: PLW0603 - read with every count, so neither looked up nor asked of the system
    _file_name = os.environ.get(WORKER_SLOT) or str(os.getpid())
