"""Slots move from one master to another while their users register and hand numbers in."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import requests
from redis.crc import key_slot

from tests.support.problems import assert_problem
from tests.support.records import Records
from tests.support.scan import contradictions
from tests.support.servers import MailServer, Valkey, gunicorn, stopping
from tests.support.topologies import Cluster, node_id
from tests.support.waiting import wait_until
from tests.topologies.load import CLIENTS, load

SHARDS = (7, 123, 999)
ADDRESSES_A_SHARD = 16
KEYS_A_STEP = 3
"""Of one MIGRATE: few, so that often a record is on one side and its number on the other."""

STEP_S = 0.02


class Growing:
    """A cluster of three masters, and a fourth that has joined and has no slot yet: on no map."""

    def __init__(self, folder: Path) -> None:
        self._cluster = Cluster(folder, replicas=False)
        self.url = self._cluster.url
        first = self._cluster.masters[0]
        self.newcomer = self._cluster.node(folder / "newcomer")
        self.nodes = [*self._cluster.masters, self.newcomer]
        self.newcomer.client().execute_command(
            "CLUSTER MEET", "127.0.0.1", first.port, first.config["cluster-port"]
        )
        wait_until(
            lambda: all(int(self.info(node)["cluster_known_nodes"]) == 4 for node in self.nodes),
            20,
            "it joins",
        )
        wait_until(lambda: all(self.info(n)["cluster_state"] == "ok" for n in self.nodes), 30, "it is sound")

    def client(self) -> redis.RedisCluster:
        return self._cluster.client()

    def owner(self, slot: int) -> Valkey:
        port = self.client().nodes_manager.get_node_from_slot(slot).port
        return next(node for node in self.nodes if node.port == port)

    def stop(self) -> None:
        self.newcomer.stop()
        self._cluster.stop()

    @staticmethod
    def info(node: Valkey) -> dict[str, str]:
        found: dict[str, str] = node.client().execute_command("CLUSTER INFO")
        return found


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Growing]:
    """A new one for each test: a newcomer that has lost its last slot again would be somebody's replica."""
    with stopping(Growing(tmp_path / "growing")) as found:
        yield found


def key_by_key(cluster: Growing, slot: int, source: Valkey, target: Valkey) -> None:
    """As `redis-cli --cluster reshard` does, slowly."""
    old, new = source.client(), target.client()
    new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", node_id(source))
    old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", node_id(target))
    while keys := old.execute_command("CLUSTER GETKEYSINSLOT", slot, KEYS_A_STEP):
        old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        time.sleep(STEP_S)
    for client in (new, old, *(node.client() for node in cluster.nodes)):
        client.execute_command("CLUSTER SETSLOT", slot, "NODE", node_id(target))


def at_once(cluster: Growing, slot: int, source: Valkey, target: Valkey) -> None:
    """As Valkey 9 can."""
    source.client().execute_command("CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", node_id(target))
    wait_until(lambda: cluster.owner(slot) is target, 30, f"slot {slot} has moved")


Move = Callable[[Growing, int, Valkey, Valkey], None]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "move", [pytest.param(each, marks=pytest.mark.slow) for each in (key_by_key, at_once)]
)
def test_slots_move_under_load(growing: Growing, tmp_path: Path, move: Move) -> None:
    """To another master, and to one that had none before: no half state, no lost token, only 503s."""
    client = growing.client()
    records = Records(client)
    people = [email for shard in SHARDS for email in records.addresses_in_shard(shard, ADDRESSES_A_SHARD)]
    with load(tmp_path, growing.url, lambda number: people[number::CLIENTS]) as running:
        wait_until(lambda: running.successes(0) > 100, 30, "the load runs")
        for shard in (*SHARDS, *SHARDS[1:]):  # a master that loses its last slot becomes a replica
            slot = key_slot(b"{%03d}" % shard)
            source = growing.owner(slot)
            others = [node for node in growing.nodes if node is not source]
            target = growing.newcomer if source is not growing.newcomer else others[shard % 3]
            move(growing, slot, source, target)
        moved = time.monotonic()
        wait_until(lambda: running.successes(moved) > 100, 30, "the load goes on")
    print(f"5 slots moved: {dict(running.statuses)}")  # noqa: T201 - the figure
    running.assert_only_503_and_in_time()
    assert [at for at in running.refused_since(moved) if at > 1] == []
    running.assert_nothing_lost(records)
    wait_until(lambda: contradictions(client) == [], 30, "no half state")


def half_moved(cluster: Growing, slot: int) -> Callable[[], None]:
    """Moves the numbers of a slot and nothing else; returns what moves the rest."""
    source = cluster.owner(slot)
    target = next(node for node in cluster.nodes if node is not source)
    old = source.client()
    target.client().execute_command("CLUSTER SETSLOT", slot, "IMPORTING", node_id(source))
    old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", node_id(target))
    numbers = [key for key in old.execute_command("CLUSTER GETKEYSINSLOT", slot, 1000) if ":number:" in key]
    assert numbers
    old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *numbers)
    return lambda: key_by_key(cluster, slot, source, target)


@pytest.mark.timeout(120)
def test_a_script_stops_whole_where_half_a_slot_has_gone(
    growing: Growing, tmp_path: Path, mail_server: MailServer
) -> None:
    """Every key that the scripts declare is here and the number, which they cannot declare, is there. Each
    waits and then answers 503, and has changed nothing; with the whole slot moved, all goes on."""
    client = growing.client()
    records = Records(client)
    ada, eve, zoe = records.addresses_in_shard(321, 3)
    environment = {
        "REDIS_URL": growing.url,
        "REDIS_TIMEOUT": "0.5",
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(mail_server.port),
        "MAIL_DEFAULT_SENDER": "no-reply@example.com",
    }
    with gunicorn(tmp_path, environment) as service:

        def verify(email: str, number: str) -> requests.Response:
            return service.post("/api/users/verify", {"email": email, "number": number})

        where = service.register(ada, "of ada").headers["Location"]
        assert service.register(eve, "of eve").status_code == 201
        number = mail_server.box.wait_for(ada)[-1].number
        other = mail_server.box.wait_for(eve)[-1].number
        assert verify(ada, other).status_code == 403  # so that there is a count of wrong numbers
        client.zadd(records.keys(ada).outbox, {"somebody": 1e15})  # so that there is an outbox
        finish = half_moved(growing, key_slot(b"{321}"))
        for answer in (
            verify(ada, number),
            service.http.delete(service.url + where, timeout=10),
            service.register(ada, "newer"),
            service.register(zoe),
        ):
            assert_problem(answer, 503, "storage-unavailable")
        client.zrem(records.keys(ada).outbox, "somebody")
        finish()  # a slot that is on its way is in no SCAN
        assert contradictions(client) == []
        assert verify(ada, number).json()["token"] == "of ada"
        assert service.register(eve, "newer").status_code in (201, 202)
        assert service.register(zoe).status_code in (201, 202)
    assert contradictions(client) == []
