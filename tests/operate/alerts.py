"""For every alert rule: what must have happened for it to fire. In promtool's notation for series."""

from collections.abc import Sequence
from typing import Final

MINUTES: Final = 125
"""How long a story lasts; every rule has fired by then if its condition holds all the while."""

LONGEST: Final = 30 * 60
"""Of a rule that looks back a day."""

CHANGE: Final = 26 * 60
"""When something changes in a long story."""


def steady(value: float) -> str:
    return f"{value}+0x{LONGEST}"


def rising(a_minute: float, later: float | None = None) -> str:
    """`later`: how fast it rises after the change."""
    if later is None:
        return f"0+{a_minute}x{LONGEST}"
    return f"0+{a_minute}x{CHANGE} {a_minute * CHANGE + later}+{later}x{LONGEST - CHANGE - 1}"


def histogram(name: str, below_s: float, a_minute: float = 60) -> dict[str, str]:
    """A histogram all of whose observations are below `below_s`, and above a tenth of it."""
    return {
        f'{name}_bucket{{le="{below_s / 10:g}", {WHO}}}': steady(0),
        f'{name}_bucket{{le="{below_s:g}", {WHO}}}': rising(a_minute),
        f'{name}_bucket{{le="+Inf", {WHO}}}': rising(a_minute),
    }


WHO: Final = 'job="cedula", instance="a:8000"'


def counter(name: str, labels: str, a_minute: float, later: float | None = None) -> dict[str, str]:
    return {f"{name}{{{labels}, {WHO}}}": rising(a_minute, later)}


def requests(status: int, a_minute: float) -> dict[str, str]:
    return counter("cedula_requests_total", f'route="/api/users", method="POST", status="{status}"', a_minute)


def deliveries(outcome: str, a_minute: float) -> dict[str, str]:
    return counter("cedula_deliveries_total", f'outcome="{outcome}"', a_minute)


def registrations(stage: str, a_minute: float, later: float | None = None) -> dict[str, str]:
    return counter("cedula_service_registrations_total", f'service="shop", stage="{stage}"', a_minute, later)


def events(outcome: str, a_minute: float) -> dict[str, str]:
    return counter("cedula_events_total", f'service="shop", outcome="{outcome}"', a_minute)


def candidates(tried: float) -> dict[str, str]:
    return {
        f"cedula_registration_candidates_sum{{{WHO}}}": rising(60 * tried),
        f"cedula_registration_candidates_count{{{WHO}}}": rising(60),
    }


Series = dict[str, str]

UP: Final = f"up{{{WHO}}}"
STORAGE: Final = f"cedula_storage_up{{{WHO}}}"
MEMORY: Final = f"cedula_storage_memory_used_ratio{{{WHO}}}"
BREAKER: Final = f'cedula_mail_breaker_open{{pid="1", {WHO}}}'
AGE: Final = f"cedula_outbox_oldest_age_seconds{{{WHO}}}"
DROPPED: Final = f"cedula_log_lines_dropped_total{{{WHO}}}"
UNWELL: Final = f'cedula_thread_unwell{{thread="outbox-relay", pid="1", {WHO}}}'
TEST: Final = f'cedula_service_test{{service="shop", {WHO}}}'
WAITING: Final = f'cedula_events_waiting{{service="shop", {WHO}}}'
FAILING: Final = f'cedula_event_receiver_state{{service="shop", state="failing", {WHO}}}'
GONE: Final = f'cedula_event_receiver_state{{service="shop", state="gone", {WHO}}}'
FILL: Final = f'cedula_number_space_fill_ratio{{scope="fullest_shard", {WHO}}}'

HEALTHY: Final[Series] = {
    UP: steady(1),
    STORAGE: steady(1),
    MEMORY: steady(0.5),
    BREAKER: steady(0),
    AGE: steady(30),
    FILL: steady(0.01),
    **requests(201, 600),
    **requests(503, 1),
    **deliveries("sent", 600),
    **deliveries("put_off", 10),
    **deliveries("refused", 5),
    **deliveries("given_up", 0),
    TEST: steady(0),
    **registrations("registered", 600),
    **registrations("sent", 600),
    **registrations("verified", 480),
    **registrations("bounced", 6),
    **registrations("complained", 1),
    WAITING: steady(20),
    FAILING: steady(0),
    GONE: steady(0),
    **events("taken", 600),
    **events("put_off", 5),
    **events("given_up", 0),
    **events("dropped", 0),
    **counter("cedula_mail_faults_total", 'blame="moment"', 10),
    **counter("cedula_mail_faults_total", 'blame="operator"', 0),
    **counter("cedula_problems_total", 'problem="internal-error"', 0),
    **counter("cedula_problems_total", 'problem="number-space-exhausted"', 0),
    **counter("cedula_problems_total", 'problem="unauthorized"', 1),
    **counter("cedula_budgets_refused_total", 'budget="attempts"', 1),
    **counter("cedula_budgets_refused_total", 'budget="registrations"', 1),
    UNWELL: steady(0),
    **counter("cedula_thread_restarts_total", 'thread="outbox-relay"', 0),
    DROPPED: steady(0),
    **candidates(1.01),
    **histogram("cedula_registration_duration_seconds", 0.05),
    **histogram("cedula_mail_duration_seconds", 1),
}
"""A service under load, with the few failures of every day."""

FIRES_ON: Final[dict[str, Series]] = {
    "CedulaDown": {UP: steady(0)},
    "CedulaNotScraped": {UP: ""},
    "CedulaStorageUnavailable": {STORAGE: steady(0)},
    "CedulaStorageFilling": {MEMORY: steady(0.81)},
    "CedulaServerErrors": requests(503, 20),
    "CedulaInternalErrors": counter("cedula_problems_total", 'problem="internal-error"', 0.5),
    "CedulaMailServerDown": {BREAKER: steady(1)},
    "CedulaMailRefused": counter("cedula_mail_faults_total", 'blame="operator"', 0.5),
    "CedulaOutboxOld": {AGE: steady(1000)},
    "CedulaDeliveriesFailing": deliveries("put_off", 200),
    "CedulaDeliveryStopped": deliveries("put_off", 10_000),
    "CedulaMailsGivenUp": deliveries("given_up", 0.1),
    "CedulaMostAddressesRefused": deliveries("refused", 1000),
    "CedulaManyAddressesRefused": deliveries("refused", 100),
    "CedulaFewVerified": registrations("verified", 480, later=120),
    "CedulaManyBounces": registrations("bounced", 40),
    "CedulaNumberSpaceFilling": {FILL: steady(0.81)},
    "CedulaNumbersExhausted": counter("cedula_problems_total", 'problem="number-space-exhausted"', 0.5),
    "CedulaGuessing": counter("cedula_budgets_refused_total", 'budget="attempts"', 5),
    "CedulaMailFlood": counter("cedula_budgets_refused_total", 'budget="registrations"', 10),
    "CedulaUnauthorized": counter("cedula_problems_total", 'problem="unauthorized"', 10),
    "CedulaStorageSlow": histogram("cedula_registration_duration_seconds", 2.5),
    "CedulaMailSlow": histogram("cedula_mail_duration_seconds", 30),
    "CedulaEventsDropped": events("dropped", 0.2),
    "CedulaEventsGone": {GONE: steady(1)},
    "CedulaEventsLate": {WAITING: steady(50_001)},
    "CedulaThreadUnwell": {UNWELL: steady(1)},
    "CedulaThreadRestarts": counter("cedula_thread_restarts_total", 'thread="outbox-relay"', 0.1),
    "CedulaLogLinesDropped": {DROPPED: rising(1)},
}
"""What turns the healthy service into the one that the rule is there for."""

FIRES_TOO: Final = {
    "CedulaDeliveryStopped": ("CedulaDeliveriesFailing",),
    "CedulaMostAddressesRefused": ("CedulaManyAddressesRefused",),
}
"""Some are there for the worst of what another one is there for."""


LONG: Final = ("CedulaFewVerified",)
"""They compare with the day before."""


def story(
    alert: str | None, changes: Series, minutes: int = 0, also: Sequence[str] = ()
) -> dict[str, object]:
    """One of promtool's tests: these series, and exactly this alert fires (None: none does), `also` these
    and those of FIRES_TOO."""
    minutes = minutes or (LONGEST if alert in LONG else MINUTES)
    replaced = {name.split("{")[0] for name in changes if "_bucket" in name}
    kept = {name: values for name, values in HEALTHY.items() if name.split("{")[0] not in replaced}
    series = {name: values for name, values in {**kept, **changes}.items() if values}
    alerts = [alert, *FIRES_TOO.get(alert, ()), *also] if alert else []
    firing = [{"labels": f'{{alertname="{one}"}}', "value": 1} for one in alerts]
    return {
        "name": alert or "healthy",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minutes}m",
                "exp_samples": firing,
            }
        ],
    }
