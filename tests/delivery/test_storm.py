"""The storm in small; `python -m tests.delivery.storm --seconds 300` is the large one."""

from pathlib import Path

import pytest

from tests.delivery.storm import KILLS, MAILS, SERVICES, storm


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_after_a_storm_every_address_has_its_live_number_as_its_last_mail(tmp_path: Path) -> None:
    """20 s of kills, cuts, slowness and restarts for three services, one of which is taken out and put back;
    then the outbox empties and everything fits together."""
    with storm(tmp_path, 20) as weather:
        report = weather.run()
        assert report.problems == []
        assert report.mails.total() > MAILS
        assert report.kills >= KILLS
        assert report.absences > 0
        assert report.waited > 0
        assert all(report.answers[service].total() > 0 for service in SERVICES)
