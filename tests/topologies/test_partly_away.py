"""A master that is away takes only its own addresses with it (docs/capacity.md)."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from app.domain.address import Address
from app.storage.storage import Storage
from tests.support.people import Process
from tests.support.receivers import receiving
from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn, stopping
from tests.support.telling import Person
from tests.support.tenants import services_file
from tests.support.topologies import SLOTS, Cluster
from tests.support.waiting import wait_until

RELAY, EVENT_RELAY, KEY_CHECK = range(3)
"""Which of three masters has `cedula:relay`, `cedula:event-relay` or `cedula:keycheck`."""

PEOPLE = 20


@pytest.fixture(scope="module")
def three_masters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with stopping(Cluster(tmp_path_factory.mktemp("nodes"), replicas=False)) as found:
        yield found


@pytest.fixture
def nodes(three_masters: Cluster) -> Cluster:
    """Three masters that serve on when another is away; empty, and sound."""
    for node in three_masters.nodes:
        node.client().config_set("cluster-require-full-coverage", "no")
        wait_until(lambda node=node: is_sound(node), 30, "the cluster is sound")  # type: ignore[misc] # a default
    three_masters.flush()
    return three_masters


def is_sound(node: Valkey) -> bool:
    found = node.client().execute_command("CLUSTER INFO")
    return bool(found["cluster_state"] == "ok" and int(found["cluster_slots_ok"]) == SLOTS)


@contextmanager
def killed(node: Valkey) -> Iterator[None]:
    node.kill()
    try:
        yield
    finally:
        node.start()


def people_elsewhere(process: Process, nodes: Cluster, away: Valkey) -> list[Person]:
    """Whose keys are on the other masters."""
    map_of: Any = nodes.client()
    addresses = (Address.parse(f"user{turn}@example.com") for turn in count())
    ports = ((address, map_of.get_node_from_key(process.keys(address).user).port) for address in addresses)
    elsewhere = (address for address, port in ports if port != away.port)
    return [Person(process, map_of, address) for address in islice(elsewhere, PEOPLE)]


@pytest.mark.parametrize("away", [RELAY, EVENT_RELAY, KEY_CHECK])
@pytest.mark.parametrize("is_silent", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_mails_and_events_that_are_owed_elsewhere_go_out(
    nodes: Cluster, tmp_path: Path, mail_server: MailServer, away: int, is_silent: bool
) -> None:
    """Whatever else was on the master: the lock of those who sweep, or the mark of whose data it is."""
    process, node = Process(nodes.url, name="shop", listens=True), nodes.nodes[away]
    people = people_elsewhere(process, nodes, node)
    process.outbox.now_ms()  # it knows who has what
    with receiving() as receiver:
        settings = {
            "REDIS_URL": nodes.url,
            "REDIS_TIMEOUT": "0.5",
            "MAIL_SERVER": "127.0.0.1",
            "MAIL_PORT": str(mail_server.port),
            "MAIL_TIMEOUT": "1",
            "SERVICES_FILE": str(services_file(tmp_path, shop=receiver.table("shop"))),
            "WEB_CONCURRENCY": "1",
        }
        with gunicorn(tmp_path, settings) as service:
            wait_until(lambda: is_ready(service), 30, "it is ready")
            with node.frozen() if is_silent else killed(node):
                for person in people:
                    person.sent()
                    process.registered(person.address, lease_ms=0)
                wait_until(
                    lambda: all(mails(mail_server, person) for person in people), 30, "the mails go out"
                )
                for person in people:
                    receiver.wait_for(person.user_id, "sent", "sent")
                assert is_ready(service)
    process.close()
    assert all(mails(mail_server, person) == 1 for person in people)


def is_ready(service: Gunicorn) -> bool:
    return service.http.get(f"{service.url}/readyz").status_code == 200


def mails(server: MailServer, person: Person) -> int:
    return len(server.box.to(person.address.email))


def test_slots_that_are_nobodys_take_only_their_own_keys_with_them(nodes: Cluster) -> None:
    """Their master was lost and forgotten. A process that starts, as each command of the operator does, still
    counts, lists and tells the time."""
    first = nodes.nodes[0].client()
    for node in nodes.nodes:
        node.client().execute_command("CLUSTER", "DELSLOTSRANGE", 0, 99)
    try:
        storage = Storage(nodes.url, 1.0)
        assert storage.now_ms() > 1_700_000_000_000
        assert storage.size() == 0
        storage.close()
    finally:
        first.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 99)
