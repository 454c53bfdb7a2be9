"""The series that exist."""

import re

from app.telemetry.metrics import DELIVERIES, Metrics, exposition
from tests.support.metrics import read


def test_every_series_exists_before_its_first_event() -> None:
    """So that Prometheus sees the first one as a rise from 0."""
    found = read(exposition(Metrics().series(), []).decode())
    for outcome in DELIVERIES.values():
        assert found[f'cedula_deliveries_total{{outcome="{outcome}"}}'] == 0
    for budget in ("registrations", "attempts", "requests"):
        assert found[f'cedula_budgets_refused_total{{budget="{budget}"}}'] == 0
    assert len([name for name in found if re.match(r"cedula_problems_total\{", name)]) >= 15
