"""`doctor` tells what is owed, for how long, and the reason."""

import re

import redis

from app.cli.doctor import outbox
from app.cli.doctor.findings import Finding, Level
from app.config import Settings
from app.domain.number import SHARDS
from app.repositories.census import ENTRIES_LOOKED_AT
from app.repositories.keys import PAIRS, Field, keys_of
from tests.support.servers import Valkey, free_port


def owe(client: redis.Redis, count: int, error: str, age_s: int = 60, name: str = "a") -> None:
    """So many mails, one in each shard, which were tried with this result."""
    seconds, _ = client.time()
    pipeline = client.pipeline(transaction=False)
    for number in range(count):
        keys = keys_of(f"{PAIRS[number % SHARDS]}{f'{name}{number}':a>24}")
        created_ms = (int(seconds) - age_s) * 1000
        pipeline.hset(keys.user, mapping={Field.CREATED_MS.value: created_ms, Field.ERROR.value: error})
        pipeline.zadd(keys.outbox, {keys.user_id: 1})
    pipeline.execute()


def found(server: Valkey) -> Finding:
    (one,) = outbox.examine(Settings(redis_url=server.url))
    return one


def test_an_outbox_without_trouble_is_well(valkey_server: Valkey, store: redis.Redis) -> None:
    """Empty, or with mails that are just being sent."""
    assert found(valkey_server) == Finding("outbox", Level.OK, "No mail is owed.")
    owe(store, 3, "", age_s=1)
    well = found(valkey_server)
    assert (well.level, well.cure) == (Level.OK, "")
    assert "3 mails are owed" in well.says
    assert "none was tried yet" in well.says


def test_what_is_owed_is_told_with_the_most_frequent_reason(
    valkey_server: Valkey, store: redis.Redis
) -> None:
    """And where the others can be seen."""
    owe(store, 20, "content 554 5.7.1", name="x")
    owe(store, 5, "recipient 450 4.2.1", name="y")
    owe(store, 30, "", name="z")
    note = found(valkey_server)
    assert note.level is Level.NOTE
    told = re.fullmatch(
        r"55 mails are owed, the oldest for (\d+) s; content 554 5\.7\.1: 20 of 55 looked at\.", note.says
    )
    assert told is not None
    assert 60 <= int(told[1]) < 90
    assert "outbox list" in note.cure


def test_a_mail_that_is_owed_for_long_is_a_warning(valkey_server: Valkey, store: redis.Redis) -> None:
    """Also one that nobody has tried, as while the mail server is down."""
    owe(store, 1, "", age_s=3700)
    warning = found(valkey_server)
    assert warning.level is Level.WARNING
    assert warning.says == "1 mail is owed, the oldest for 61 min; none was tried yet."


def test_a_look_reads_a_bounded_part_of_a_long_outbox(valkey_server: Valkey, store: redis.Redis) -> None:
    """Its length is exact all the same."""
    owe(store, 10_000, "recipient 450 4.2.1")
    store.config_resetstat()
    assert found(valkey_server).says.startswith("10,000 mails are owed")
    assert store.info("commandstats")["cmdstat_hmget"]["calls"] <= ENTRIES_LOOKED_AT


def test_a_redis_that_is_away_is_no_matter_of_the_outbox() -> None:
    """What is wrong with it is said elsewhere."""
    assert list(outbox.examine(Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0"))) == []
