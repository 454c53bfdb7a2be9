"""`doctor` finds what keeps events from their receivers, and names the cure for each."""

import socket
import ssl
import time
from pathlib import Path

import pytest

from app.cli.doctor import events
from app.cli.doctor.findings import Level
from app.config import Settings
from app.directory.reading import Reading, read_disk
from app.sockets.names import Names
from app.webhook.webhooks import Webhooks
from tests.operate.doctor import SENDER, assert_found, worst
from tests.support.authority import Authority
from tests.support.certificates import Certificate
from tests.support.events import SECRET
from tests.support.faults.addresses import leading_to
from tests.support.faults.receiver import OddReceiver, closes, says
from tests.support.servers import free_port
from tests.support.tenants import services_file
from tests.support.waiting import wait_until


def telling(folder: Path, **urls: str) -> Reading:
    """Services by name, with where their events go."""
    tables = {
        name: {"events_url": url, "events_secrets": [SECRET]} if url else {} for name, url in urls.items()
    }
    reading = read_disk(
        Settings(mail_default_sender=SENDER, services_file=str(services_file(folder, **tables)))
    )
    assert reading.wrong == []
    return reading


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "authority").mkdir()
    return Authority(tmp_path / "authority")


def trusting(authority: Authority, names: Names | None = None, timeout_s: float = 30.0) -> Webhooks:
    return Webhooks(timeout_s, tls=ssl.create_default_context(cafile=str(authority.ca_file)), names=names)


def test_a_receiver_as_it_should_be_has_nothing_to_complain_about(
    authority: Authority, tmp_path: Path
) -> None:
    """Those of all services are looked at together, and nothing is posted; without any there is nothing to
    say."""
    assert list(events.examine(telling(tmp_path, shop=""))) == []
    with OddReceiver(tls=authority.server("localhost")) as receiver, OddReceiver() as plain:
        reading = telling(
            tmp_path, shop=receiver.endpoint("localhost").url, bank="", club=plain.endpoint().url
        )
        (found,) = events.examine(reading, trusting(authority))
        assert (found.level, found.says[-13:]) == (Level.OK, ": shop, club.")
        wait_until(lambda: (receiver.connections, plain.connections) == (1, 1), 10, "both have accepted")
        assert receiver.posted == plain.posted == []


def test_receivers_that_cannot_be_reached_are_found(tmp_path: Path) -> None:
    """By the names of their services; of their URLs, which may hold secrets, nothing is told."""
    unknown, nothing = "https://receiver.invalid/letmein", f"https://127.0.0.1:{free_port()}/letmein"
    found = list(events.examine(telling(tmp_path, shop=unknown, club=nothing, bank=unknown)))
    assert [each.level for each in found] == [Level.PROBLEM, Level.PROBLEM]
    assert found[0].says.startswith("No event is delivered for: club. Nothing listens")
    assert found[1].says.startswith(
        "No event is delivered for: shop, bank. The name in `events_url` is unknown"
    )
    assert "DNS" in found[1].cure
    assert "letmein" not in str(found)


def test_a_receiver_that_is_silent_is_found(tmp_path: Path, authority: Authority) -> None:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reading = telling(tmp_path, shop=f"https://127.0.0.1:{silent.getsockname()[1]}/")
        found = events.examine(reading, trusting(authority, timeout_s=0.2))
        assert_found(found, Level.PROBLEM, "does not answer in time", "firewall")


@pytest.mark.parametrize(
    ("url", "says_what", "cure"),
    [
        ("https://receiver.example/", "leads to a private address", "events_private = true"),
        ("http://localhost/", "says http://", "Write https://"),
    ],
)
def test_a_name_that_leads_where_no_event_may_go_is_found(
    tmp_path: Path, authority: Authority, url: str, says_what: str, cure: str
) -> None:
    """As it is looked up here and now."""
    inside = Names(leading_to("10.0.0.1"))
    found = events.examine(telling(tmp_path, shop=url), trusting(authority, inside))
    assert_found(found, Level.PROBLEM, says_what, cure)


def test_a_bad_certificate_of_a_receiver_is_found(tmp_path: Path, authority: Authority) -> None:
    """Not trusted, expired, for another name, or no TLS at all."""
    faults = {
        "is not trusted": (Certificate(tmp_path).server_context(), "SSL_CERT_FILE"),
        "has expired": (authority.server("localhost", expired=True), "renewed"),
        "for another name": (authority.server("receiver.example"), "events_url"),
    }
    for says_what, (context, cure) in faults.items():
        with OddReceiver(tls=context) as receiver:
            reading = telling(tmp_path, shop=receiver.endpoint("localhost").url)
            assert_found(events.examine(reading, trusting(authority)), Level.PROBLEM, says_what, cure)


def test_a_receiver_without_tls_is_found(tmp_path: Path, authority: Authority) -> None:
    """Another protocol at that port, or a connection that ends at once."""
    other, end = says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), closes()
    for act, says_what, cure in (
        (other, "TLS handshake with the receiver fails", "TLS 1.2"),
        (end, "closes the connection at once", "log"),
    ):
        with OddReceiver(tls=authority.server("localhost"), at_once=act) as receiver:
            reading = telling(tmp_path, shop=receiver.endpoint("localhost").url)
            assert_found(events.examine(reading, trusting(authority)), Level.PROBLEM, says_what, cure)


def test_many_receivers_that_are_silent_are_looked_at_together(tmp_path: Path, authority: Authority) -> None:
    """Whoever examines a hundred services does not wait for each; who shares a receiver is told with it."""
    with socket.create_server(("0.0.0.0", 0), backlog=128) as silent:
        port = silent.getsockname()[1]
        urls = {f"s{turn}": f"https://127.0.0.{1 + turn % 20}:{port}/{turn}" for turn in range(40)}
        started = time.monotonic()
        (found,) = worst(events.examine(telling(tmp_path, **urls), trusting(authority, timeout_s=1.0)))
    assert time.monotonic() - started < 1.9
    assert "and 35 more. The receiver" in found.says


def test_after_a_while_the_receivers_that_are_left_are_only_counted(
    tmp_path: Path, authority: Authority
) -> None:
    """The runbook begins with doctor: it says what else is wrong although hundreds are silent."""
    with socket.create_server(("0.0.0.0", 0), backlog=128) as silent:
        port = silent.getsockname()[1]
        urls = {f"s{turn}": f"https://127.0.0.{1 + turn}:{port}/" for turn in range(2 * events.AT_A_TIME)}
        found = list(events.examine(telling(tmp_path, **urls), trusting(authority, timeout_s=0.3), 0.2))
    assert [each.level for each in found] == [Level.NOTE, Level.PROBLEM]
    assert found[0].says.startswith("Not looked at, as too many others do not answer: s32, s33")
    assert found[1].says.startswith("No event is delivered for: s0, s1, s2, s3, s4 and 27 more.")
