"""The storm for events in small; `python -m tests.delivery.events_storm --seconds 300` is the large one."""

from pathlib import Path

import pytest

from tests.delivery.events_storm import EventsReport, EventsStorm
from tests.delivery.storm import KILLS, MAILS, storm


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_after_a_storm_everything_that_was_acknowledged_has_been_told_in_order(tmp_path: Path) -> None:
    """60 s in which workers, Valkey and the receiver are killed; then nothing waits any more."""
    with storm(tmp_path, 60, kind=EventsStorm) as weather:
        report = weather.run()
        assert isinstance(report, EventsReport)
        assert report.problems == []
        assert report.receiver_kills >= KILLS
        assert report.told["sent"] > MAILS
        assert report.told["verified"] > 0
        assert report.told["expired"] > 0
