"""The series that exist."""

import re

from app.domain.service import Endpoint, Service
from app.telemetry.metrics import DELIVERIES, Metrics, StoreState, exposition, service_gauges, store_gauges
from tests.support.metrics import read
from tests.support.servers import ROOT


def test_every_series_exists_before_its_first_event() -> None:
    """So that Prometheus sees the first one as a rise from 0."""
    found = read(exposition(Metrics().series(), []).decode())
    for outcome in DELIVERIES.values():
        assert found[f'cedula_deliveries_total{{outcome="{outcome}"}}'] == 0
    for budget in ("registrations", "attempts", "requests"):
        assert found[f'cedula_budgets_refused_total{{budget="{budget}"}}'] == 0
    assert len([name for name in found if re.match(r"cedula_problems_total\{", name)]) >= 15


def test_the_first_death_of_a_thread_is_a_rise() -> None:
    """Also of one that starts late, such as mail-trial in an outage: its first scrape may find it dead."""
    found = read(exposition(Metrics().series(), []).decode())
    sources = [path.read_text() for path in (ROOT / "app").rglob("*.py")]
    names = {name for text in sources for name in re.findall(r'WatchedThread\(\s*"([\w-]+)"', text)}
    assert len(names) >= 8
    for name in names:
        assert found[f'cedula_thread_restarts_total{{thread="{name}"}}'] == 0


SHOP = Service(id="shop", events=Endpoint("https://acme.example/hooks", ("whsec_x",)))
BANK = Service(id="bank", test=True)


def test_every_series_of_a_service_exists_from_its_first_day() -> None:
    """Those of events only where it gets some."""
    metrics = Metrics()
    metrics.serving([SHOP, BANK])
    found = read(exposition(metrics.series(), service_gauges(metrics.services)).decode())
    for stage in ("registered", "sent", "failed", "bounced", "complained", "verified"):
        assert found[f'cedula_service_registrations_total{{service="bank",stage="{stage}"}}'] == 0
    assert {name: value for name, value in found.items() if name.startswith("cedula_events_total")} == {
        f'cedula_events_total{{outcome="{outcome}",service="shop"}}': 0
        for outcome in ("taken", "put_off", "given_up", "dropped")
    }
    assert found['cedula_service_test{service="shop"}'] == 0
    assert found['cedula_service_test{service="bank"}'] == 1


def test_receivers_are_told_of_also_while_they_are_well() -> None:
    """What waits for a service that is no longer configured is told, too; without Redis nothing is known."""
    well = read(exposition({}, store_gauges(StoreState(0, 0, 0, 0), [SHOP, BANK])).decode())
    gone = StoreState(0, 0, 0, 0, events_waiting={"shop": 7, "former": 9}, receivers={"shop": "gone"})
    ill = read(exposition({}, store_gauges(gone, [SHOP, BANK])).decode())
    told = [
        'cedula_event_receiver_state{service="shop",state="failing"}',
        'cedula_event_receiver_state{service="shop",state="gone"}',
        'cedula_events_waiting{service="former"}',
        'cedula_events_waiting{service="shop"}',
    ]
    assert [well.get(name) for name in told] == [0, 0, None, 0]
    assert [ill.get(name) for name in told] == [0, 1, 9, 7]
    assert not any("bank" in name for name in ill)
    assert not any("event" in name for name in read(exposition({}, store_gauges(None, [SHOP])).decode()))
