"""What the service counts, for Prometheus: facts in, series out.

Counts are numbers in memory; nothing is written here. How the workers of one gunicorn share them:
app/telemetry/board.py. Nothing personal and nothing that a client can choose becomes a label, so the number
of series is bounded. May import the domain and the errors, for the names of what is counted.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from typing import Any, Final, Literal, NamedTuple, get_args

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.domain.registration import Delivery
from app.domain.report import Outcome, ReportKind
from app.domain.service import Service
from app.errors import PROBLEMS
from app.telemetry.lines import native
from app.version import VERSION

CONTENT_TYPE: Final = prometheus_client.exposition.CONTENT_TYPE_PLAIN_0_0_4

Series = dict[tuple[str, ...], list[float]]
"""By the metric's name and the values of its labels. A counter is one number; a histogram the number of
observations in each bucket, those above all buckets, and the sum of what was observed."""

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

THREADS: Final = (
    "outbox-relay",
    "mail-sender",
    "mail-trial",
    "snapshots",
    "redis-watchdog",
    "cluster-map",
    "event-relay",
    "event-courier",
)
"""The names of watched threads. Some start with their first work only, and may die of it."""

EventOutcome = Literal["taken", "put_off", "given_up", "dropped"]
"""What became of an event: its receiver took it; it is tried again; it was not taken within 24 hours; it was
left out, because too many wait or the receiver is gone."""


class Stage(StrEnum):
    """How far registrations of a service have come, and their label. Also of test services, whose mails count
    as what they are told to have come to."""

    REGISTERED = "registered"  # stored
    SENT = "sent"  # the mail server accepted a mail: of one that is mailed again, each
    FAILED = "failed"  # its mail was given up; a refusal that its caller was told leaves no registration
    BOUNCED = "bounced"  # its mail came back for good
    COMPLAINED = "complained"  # the person called its mail unwanted
    VERIFIED = "verified"  # its number was handed in


class Kind(NamedTuple):
    """A counter, or a histogram where it has buckets. `known`: the values of its one label, where the label
    has no others; each is told from the start, so that Prometheus sees the first event as a rise."""

    text: str
    labels: tuple[str, ...] = ()
    known: Collection[str] = ()
    buckets: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers a series of it has."""
        return len(self.buckets) + 2 if self.buckets else 1


KINDS: Final[Mapping[str, Kind]] = {
    "cedula_requests": Kind("Requests answered.", ("route", "method", "status", "caller")),
    "cedula_problems": Kind("Answers that were problems (RFC 9457).", ("problem",), PROBLEMS),
    "cedula_budgets_refused": Kind(
        "Requests refused by a used-up budget.", ("budget",), tuple(BUDGETS.values())
    ),
    "cedula_deliveries": Kind("Attempts to mail a number.", ("outcome",), tuple(DELIVERIES.values())),
    "cedula_service_registrations": Kind("How far registrations have come.", ("service", "stage")),
    "cedula_events": Kind("What became of events for a service.", ("service", "outcome")),
    "cedula_reports": Kind("Reports of what became of mails.", ("kind", "outcome")),
    "cedula_mail_faults": Kind(
        "Mails not accepted, by whose fault it was.", ("blame",), ("address", "server", "operator", "moment")
    ),
    "cedula_thread_restarts": Kind("Threads that died and were started again.", ("thread",), THREADS),
    "cedula_log_lines_dropped": Kind("Log lines that could not be written."),
    "cedula_request_duration_seconds": Kind(
        "Time from a request to its answer.",
        ("route",),
        # As long as the mail server takes, of which a request waits MAIL_TIMEOUT (10 s, at most 50 s).
        buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    ),
    "cedula_registration_duration_seconds": Kind(
        "Time to store a registration in Redis.",
        # A few round trips, each at most REDIS_TIMEOUT (2 s).
        buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
    ),
    "cedula_registration_candidates": Kind(
        "Numbers tried for one registration until a free one was found.",
        # 1 while the number space is empty, 5 on average when 80 % of it is taken; we give up at 3,972.
        buckets=(1, 2, 3, 4, 8, 16, 64, 132, 516, 1028, 3972),
    ),
    "cedula_mail_duration_seconds": Kind(
        "Time to hand one mail to the mail server, whatever it answered.",
        # The final reply may take ten minutes (RFC 1047).
        buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 600),
    ),
}


@dataclass(frozen=True, slots=True)
class StoreState:
    """What a look at Redis found. `oldest_age_s`: of the mail that has been owed longest, 0 when none is.

    `fill`, `fullest_fill`: the taken share of all numbers and of the fullest shard's, at most.
    `memory_used`: the used share of `maxmemory` on the fullest server, None without one.
    `events_waiting`: by service. `receivers`: what is wrong with those of services, `failing` or `gone`.
    """

    outbox_depth: int
    oldest_age_s: float
    fill: float
    fullest_fill: float
    memory_used: float | None = None
    events_waiting: Mapping[str, int] = field(default_factory=dict)
    receivers: Mapping[str, str] = field(default_factory=dict)


class Metrics:
    """Everything that is counted in this process. Each method is a fact."""

    def __init__(self) -> None:
        # The system's lock, not gevent's: nothing waits while it is held, and it costs a tenth.
        self._lock = native("_thread", "allocate_lock")()
        self.breaker_open = False
        self.has_answered = False
        """This process, or one that has forked it, has answered a request."""
        self.services: Collection[Service] = ()
        self._series: Series = {}
        for name, kind in KINDS.items():
            for labels in [(value,) for value in kind.known] if kind.labels else [()]:
                self._series[name, *labels] = [0] * kind.size

    def answered(self, route: str, method: str, status: int, seconds: float, caller: str = "") -> None:
        """A request was answered. `route`: the rule, never the path; `method`: one of the known; `caller`:
        the name of the API key, empty without keys."""
        self.has_answered = True
        self._count(1, "cedula_requests", route, method, str(status), caller)
        self._count(seconds, "cedula_request_duration_seconds", route)

    def problem(self, slug: str) -> None:
        """A request was answered with this problem."""
        self._count(1, "cedula_problems", slug)
        if slug in BUDGETS:
            self._count(1, "cedula_budgets_refused", BUDGETS[slug])

    def serving(self, services: Collection[Service]) -> None:
        """These services are in force: their counts are told from now on, also while they are 0."""
        self.services = services
        for service in services:
            for stage in Stage:
                self._count(0, "cedula_service_registrations", service.id, stage)
            if service.events:
                for outcome in get_args(EventOutcome):
                    self.event(service.id, outcome, 0)

    def stage(self, service_id: str, stage: Stage) -> None:
        """A registration of this service has come so far."""
        self._count(1, "cedula_service_registrations", service_id, stage)

    def registered(self, service_id: str, candidates: int, seconds: float) -> None:
        """A registration was stored, with the last of so many candidates for its number."""
        self._count(1, "cedula_service_registrations", service_id, Stage.REGISTERED)
        self._count(candidates, "cedula_registration_candidates")
        self._count(seconds, "cedula_registration_duration_seconds")

    def exhausted(self, candidates: int) -> None:
        """No free number was found among so many candidates."""
        self._count(candidates, "cedula_registration_candidates")

    def mailed(self, seconds: float) -> None:
        """The mail server was handed a mail and has answered, or has not."""
        self._count(seconds, "cedula_mail_duration_seconds")

    def delivery(self, outcome: Delivery) -> None:
        """An attempt to mail a number was settled."""
        self._count(1, "cedula_deliveries", DELIVERIES[outcome])

    def mail_fault(self, blame: str) -> None:
        """A mail was not accepted."""
        self._count(1, "cedula_mail_faults", blame)

    def reported(self, kind: ReportKind, outcome: Outcome) -> None:
        """A report of what became of a mail was read."""
        self._count(1, "cedula_reports", kind, outcome)

    def event(self, service_id: str, outcome: EventOutcome, count: int = 1) -> None:
        """So many events for a service had this outcome."""
        self._count(count, "cedula_events", service_id, outcome)

    def breaker(self, *, is_open: bool) -> None:
        """The mail server is taken to be down, or up again."""
        self.breaker_open = is_open

    def thread_restarts(self, thread: str, count: int) -> None:
        """A watched thread has died so many more times; 0 makes its series known."""
        self._count(count, "cedula_thread_restarts", thread)

    def lines_dropped(self, count: int) -> None:
        """So many more log lines could not be written."""
        self._count(count, "cedula_log_lines_dropped")

    def add(self, earlier: Series) -> None:
        """Adds the counts that a worker before this one has left, so that they go on."""
        with self._lock:
            add(self._series, earlier)

    def series(self) -> Series:
        """All that was counted, as of now."""
        with self._lock:
            return {key: [*values] for key, values in self._series.items()}

    def _count(self, value: float, *key: str) -> None:
        """Adds to a counter, or observes a value of a histogram. `key`: as in Series."""
        with self._lock:
            values = self._series.get(key)
            if values is None:
                values = self._series[key] = [0] * KINDS[key[0]].size
            if len(values) > 1:
                values[bisect_left(KINDS[key[0]].buckets, value)] += 1
            values[-1] += value  # the counter itself, or the sum


def series_of(pairs: Iterable[tuple[Iterable[object], Iterable[Any]]]) -> Series:
    """Series that were written as JSON: key and values of each. Raises ValueError, TypeError."""
    return {tuple(map(str, key)): [*map(float, values)] for key, values in pairs}


def add(total: Series, more: Series) -> None:
    """Adds up series. What another version of the service counted otherwise is left out."""
    for key, values in more.items():
        kind = KINDS.get(key[0]) if key else None
        if kind and len(key) == len(kind.labels) + 1 and len(values) == kind.size:
            mine = total.get(key, [0] * kind.size)
            total[key] = [a + b for a, b in zip(mine, values, strict=True)]


def exposition(series: Series, gauges: Iterable[Metric]) -> bytes:
    """Prometheus' text format."""
    return prometheus_client.generate_latest(_Families([_build_info(), *_counted(series), *gauges]))


def _build_info() -> Metric:
    """Which release this is, as a label."""
    info = GaugeMetricFamily("cedula_build_info", "1, with the version as a label.", labels=["version"])
    info.add_metric([VERSION], 1)
    return info


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _counted(series: Series) -> Iterable[Metric]:
    families = {
        name: (HistogramMetricFamily if kind.buckets else CounterMetricFamily)(
            name, kind.text, labels=kind.labels
        )
        for name, kind in KINDS.items()
    }
    for (name, *labels), values in series.items():
        family = families[name]
        if isinstance(family, HistogramMetricFamily):
            bounds = [*map(str, map(float, KINDS[name].buckets)), "+Inf"]
            buckets = list(zip(bounds, accumulate(values[:-1]), strict=True))
            family.add_metric(labels, buckets, values[-1])
        else:
            family.add_metric(labels, values[0])
    return families.values()


def service_gauges(services: Iterable[Service]) -> Iterable[Metric]:
    """What is known of the services in force."""
    tests = GaugeMetricFamily(
        "cedula_service_test", "1 for a test service, of which nothing is mailed.", labels=["service"]
    )
    for service in services:
        tests.add_metric([service.id], service.test)
    yield tests


def store_gauges(
    store: StoreState | None, services: Iterable[Service] = (), *, is_up: bool = True
) -> Iterable[Metric]:
    """What a look at Redis found. `store`: None when nothing is known yet, or Redis is not up. `services`:
    those in force."""
    yield GaugeMetricFamily("cedula_storage_up", "1 if Redis answers and takes writes.", int(is_up))
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
    if store.memory_used is not None:
        yield GaugeMetricFamily(
            "cedula_storage_memory_used_ratio",
            "Share of maxmemory that is used, on the fullest server.",
            store.memory_used,
        )
    yield from _event_gauges(store, [service.id for service in services if service.events])


def _event_gauges(store: StoreState, receiving: Collection[str]) -> Iterable[Metric]:
    """`receiving`: the ids of services that get events; what waits for others is told, too."""
    waiting = GaugeMetricFamily(
        "cedula_events_waiting", "Events that wait for a service.", labels=["service"]
    )
    for service_id in sorted({*receiving, *store.events_waiting}):
        waiting.add_metric([service_id], store.events_waiting.get(service_id, 0))
    states = GaugeMetricFamily(
        "cedula_event_receiver_state",
        "1 while the receiver of a service's events is so.",
        labels=["service", "state"],
    )
    for service_id in receiving:
        for state in ("failing", "gone"):
            states.add_metric([service_id, state], store.receivers.get(service_id) == state)
    return waiting, states
