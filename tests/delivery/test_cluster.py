"""Delivery on a Redis Cluster: the same scripts, the same sweep."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery.conftest import Service
from tests.support.smtp import ScriptedSmtp, say
from tests.support.topologies import Cluster
from tests.support.waiting import wait_until


@pytest.fixture
def on_cluster(tmp_path: Path, smtp: ScriptedSmtp) -> Iterator[Service]:
    cluster = Cluster(tmp_path)
    service = Service(cluster.url, smtp, mail_timeout_s=0.1)
    yield service
    service.stop()
    cluster.stop()


@pytest.mark.slow
def test_retries_and_dead_senders_are_found_on_every_master(on_cluster: Service, smtp: ScriptedSmtp) -> None:
    """One mail is put off and sent; 30 whose process died are swept up within the lease time."""
    smtp.script["rcpt"] = say("450 4.2.1 Later")
    assert on_cluster.register("later@example.com")[0].status_code == 202
    smtp.script.clear()
    on_cluster.wait_for_delivery("later@example.com", "sent")
    addresses = [f"orphan{number}@example.com" for number in range(30)]
    for address in addresses:
        on_cluster.store_without_sending(address)
    assert len(list(on_cluster.container.census.pending())) == 30
    wait_until(lambda: len(smtp.mails) == 31, 30)
    assert sorted(mail.recipient for mail in smtp.mails) == sorted(["later@example.com", *addresses])
    wait_until(lambda: not list(on_cluster.container.census.pending()))
