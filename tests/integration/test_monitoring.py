"""What monitoring looks up in Redis, how often, and at what cost."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import pytest
import redis

from app.domain.number import SHARDS, NumberGenerator
from app.repositories.census import Census, OutboxSize
from app.repositories.guard import Guard
from app.repositories.keys import Field, keys_of, shard_keys
from app.repositories.outbox import Outbox
from app.repositories.records import Sealer
from app.services.monitoring import LOOK_AGAIN_S, Monitoring
from app.telemetry.metrics import Metrics
from tests.support.metrics import Samples, read
from tests.support.records import Records
from tests.support.servers import Valkey
from tests.support.storage import storage_of
from tests.support.waiting import wait_until


class CountingGuard(Guard):
    """Is always ready, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def ready(self) -> None:
        self.asked += 1


def test_whoever_scrapes_often_gets_the_last_look_again(
    store: redis.Redis, monitoring: Callable[..., Monitoring]
) -> None:
    """A look at Redis serves for five seconds, however many ask."""
    now = [100.0]
    guard = CountingGuard()
    watched = monitoring(guard=guard, clock=lambda: now[0])
    for _ in range(50):
        watched.exposition()
    assert guard.asked == 1
    now[0] += LOOK_AGAIN_S
    watched.exposition()
    assert guard.asked == 2


class SlowCensus(Census):
    """Hears nothing from the store until it answers."""

    def __init__(self, store: redis.Redis) -> None:
        super().__init__(storage_of(store), Sealer([]))
        self.answers = threading.Event()

    def owed(self) -> OutboxSize:
        self.answers.wait(30)
        return super().owed()


def test_a_scrape_does_not_wait_for_a_slow_store(store: redis.Redis) -> None:
    """Prometheus would take the service for dead after ten seconds, and hear of nothing any more. Whether the
    store is up is told at once, the last look until the next is over, and there is one at a time."""
    now = [100.0]
    guard, census = CountingGuard(), SlowCensus(store)
    watched = watching(store, guard, lambda: now[0], look_within_s=0.1, census=census)

    def told() -> Samples:
        now[0] += LOOK_AGAIN_S
        return read(watched.exposition().decode())

    found = told()
    assert (found["cedula_storage_up"], "cedula_outbox_depth" in found) == (1, False)
    census.answers.set()
    wait_until(lambda: "cedula_outbox_depth" in told(), 5, "the look is over")
    census.answers.clear()
    asked = guard.asked
    for _ in range(3):
        assert told()["cedula_outbox_depth"] == 0
    assert guard.asked <= asked + 1
    census.answers.set()


def watching(
    client: redis.Redis,
    guard: CountingGuard,
    clock: Callable[[], float] = time.monotonic,
    *,
    look_within_s: float = 10.0,
    census: Census | None = None,
) -> Monitoring:
    storage = storage_of(client)
    outbox, census = Outbox(storage, Sealer([]), 1000), census or Census(storage, Sealer([]))
    numbers = NumberGenerator(10)
    return Monitoring(Metrics(), guard, outbox, census, numbers, clock, look_within_s=look_within_s)


@pytest.fixture
def monitoring(store: redis.Redis) -> Callable[..., Monitoring]:
    return partial(watching, store)


@pytest.mark.parametrize("asked_again", [False, True])
def test_the_age_of_the_oldest_mail_counts_from_when_it_was_asked_for(
    store: redis.Redis, monitoring: Callable[..., Monitoring], asked_again: bool
) -> None:
    """However far its next try has been put off, and however old the registration is whose number is mailed
    again. An entry whose record is gone has no age."""
    seconds, _ = store.time()
    keys = Records(store).keys("ada@example.com")
    asked_for_ms = (int(seconds) - 3600) * 1000
    record = {Field.CREATED_MS: asked_for_ms}
    if asked_again:
        record = {Field.CREATED_MS: asked_for_ms - 86_400_000, Field.SINCE_MS: asked_for_ms}
    store.hset(keys.user, mapping={name.value: ms for name, ms in record.items()})
    store.zadd(keys.outbox, {keys.user_id: (int(seconds) + 900) * 1000})
    store.zadd(shard_keys(keys_of("a" * 26).shard).outbox, {"a" * 26: 1})
    found = read(monitoring(CountingGuard()).exposition().decode())
    assert found["cedula_outbox_depth"] == 2
    assert 3599 <= found["cedula_outbox_oldest_age_seconds"] <= 3605


def test_a_look_costs_the_same_however_much_is_owed(store: redis.Redis) -> None:
    """With 20,000 mails owed, at most 2,000 records are read, besides the thousand shards."""
    pipeline = store.pipeline(transaction=False)
    for number in range(20_000):
        shard = number % SHARDS
        pipeline.zadd(shard_keys(shard).outbox, {f"{number:026}": number})
    pipeline.execute()
    store.config_resetstat()
    assert Census(storage_of(store), Sealer([])).owed().depth == 20_000
    calls = {name: stat["calls"] for name, stat in store.info("commandstats").items()}
    assert calls["cmdstat_zcard"] == calls["cmdstat_zrange"] == SHARDS
    assert calls["cmdstat_hmget"] <= 2000


def test_the_fill_is_never_told_too_low(store: redis.Redis, monitoring: Callable[..., Monitoring]) -> None:
    """Of what is counted in Redis: an upper bound for all numbers, and one for the fullest shard."""
    records = Records(store)
    for turn in range(300):
        keys = records.keys(f"ada{turn}@example.com")
        store.set(keys.user, "record")
        store.set(f"{keys.tag}:number:{turn:016}", keys.user_id)
    found = read(monitoring(CountingGuard()).exposition().decode())
    counted = Census(storage_of(store), Sealer([])).numbers_by_shard()
    assert counted.total() == 300
    overall = found['cedula_number_space_fill_ratio{scope="overall"}']
    assert overall == pytest.approx(300 / SHARDS / (9 * 10**5))
    assert found['cedula_number_space_fill_ratio{scope="fullest_shard"}'] > overall


USED = "cedula_storage_memory_used_ratio"


def test_the_memory_that_is_used_is_told_where_it_has_an_end(valkey: Valkey) -> None:
    """As Redis counts when it refuses writes: 1 is reached with the first refusal."""
    with closing(valkey.client()) as client:
        assert USED not in told_of(watching(client, CountingGuard()))
        client.config_set("maxmemory", "1gb")
        assert 0 < told_of(watching(client, CountingGuard()))[USED] < 0.1
        memory = client.info("memory")
        counted = memory["used_memory"] - memory["mem_not_counted_for_evict"]
        client.config_set("maxmemory", counted * 2)
        assert told_of(watching(client, CountingGuard()))[USED] == pytest.approx(0.5, rel=0.2)


def test_where_info_is_forbidden_the_rest_is_told_and_nothing_logged(
    valkey: Valkey,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As managed servers do; a line for each scrape would help nobody."""
    with closing(valkey.client()) as client:
        client.config_set("maxmemory", "1gb")
        client.execute_command("ACL", "SETUSER", "default", "-info")
        found = told_of(watching(client, CountingGuard()))
    assert found["cedula_storage_up"] == 1
    assert USED not in found
    assert "storage_unavailable" not in capsys.readouterr().out


def told_of(watched: Monitoring) -> Samples:
    return read(watched.exposition().decode())
