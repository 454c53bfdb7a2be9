"""`doctor` looks at a sample of the records and says which keys they need."""

from typing import Any

import pytest
import redis

from app.cli.doctor import records
from app.cli.doctor.findings import Finding, Level
from app.config import Settings
from app.repositories.keys import Field, keys_of
from app.repositories.records import Sealer
from tests.support.servers import Valkey, free_port

NEW, OLD, LOST, OTHER = "n" * 40, "o" * 40, "l" * 40, "another key that is long enough to be one"


@pytest.fixture
def put(store: redis.Redis) -> "Put":
    return Put(store)


class Put:
    """Stores records that were sealed with these secrets."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._count = 0

    def __call__(self, count: int, *secrets: str, version: int = 1, user_id: str = "") -> None:
        for _ in range(count):
            self._count += 1
            name = f"{self._count:026}"
            sealed = Sealer(secrets).seal(b"en\n1\nada@example.com\nt", user_id or name)
            fields: dict[Any, Any] = {Field.LAYOUT: version, Field.REGISTRATION: "r", "d0": sealed}
            self._client.hset(keys_of(name).user, mapping=fields)


def found(server: Valkey, *secrets: str) -> list[Finding]:
    """What is said with these secrets, the first one and the fallbacks."""
    first, *fallbacks = secrets or ("",)
    settings = Settings(
        redis_url=server.url, secret_key=first, secret_key_fallbacks=tuple(fallbacks), index_key=first
    )
    return list(records.examine(settings))


def the_only(findings: list[Finding]) -> Finding:
    (one,) = findings
    return one


def test_records_of_the_present_key_are_well(valkey_server: Valkey, put: Put) -> None:
    """With a fallback it says, too, that nothing in the sample needs it."""
    put(3, NEW)
    assert the_only(found(valkey_server, NEW)).level is Level.OK
    with_fallback = the_only(found(valkey_server, NEW, OLD))
    assert with_fallback.level is Level.OK
    assert "3 records" in with_fallback.says
    assert "none needs a fallback" in with_fallback.says


def test_records_of_a_fallback_are_counted(valkey_server: Valkey, put: Put) -> None:
    """How many need which of them, and the command that seals them anew."""
    put(2, NEW)
    put(3, OLD)
    put(1, OTHER)
    one = the_only(found(valkey_server, NEW, OLD, OTHER))
    assert one.level is Level.NOTE
    assert "4 of 6 records" in one.says
    assert "3 the 1st" in one.says
    assert "1 the 2nd" in one.says
    assert "keys reseal" in one.cure


def test_records_whose_key_is_not_configured_are_a_problem(valkey_server: Valkey, put: Put) -> None:
    """It says how many, under how many keys, and what to set."""
    put(5, NEW)
    put(2, LOST)
    put(1, OTHER)
    problem = [one for one in found(valkey_server, NEW) if one.level is Level.PROBLEM]
    assert "3 of 8 records" in the_only(problem).says
    assert "2 keys" in the_only(problem).says
    assert "SECRET_KEY_FALLBACKS" in the_only(problem).cure


def test_sealed_records_without_any_key_and_clear_ones_with_one_are_problems(
    valkey_server: Valkey, put: Put
) -> None:
    """Neither is ever opened."""
    put(1, NEW)
    put(1)
    (problem,) = [one for one in found(valkey_server) if one.level is Level.PROBLEM]
    assert "not configured" in problem.says
    (problem,) = [one for one in found(valkey_server, NEW) if one.level is Level.PROBLEM]
    assert "in clear" in problem.says


def test_records_in_clear_are_well_where_no_key_is_set(valkey_server: Valkey, put: Put) -> None:
    """That they lie in clear is said among the settings."""
    put(2)
    assert the_only(found(valkey_server)).level is Level.OK


def test_records_of_a_newer_version_are_a_warning(valkey_server: Valkey, put: Put) -> None:
    """While a roll-out lasts that is as it should be; after a roll-back it is not."""
    put(1, NEW)
    put(2, NEW, version=99)
    (warning,) = [one for one in found(valkey_server, NEW) if one.level is Level.WARNING]
    assert "2 of 3 records" in warning.says
    assert "newer version" in warning.says


def test_a_record_that_belongs_to_another_user_is_a_problem(valkey_server: Valkey, put: Put) -> None:
    """Its key is the right one, and still it does not open: somebody moved or damaged it."""
    put(1, NEW, user_id="z" * 26)
    assert "damaged" in the_only(found(valkey_server, NEW)).says


def test_a_key_of_the_wrong_type_is_a_problem(valkey_server: Valkey, store: redis.Redis, put: Put) -> None:
    """Not a traceback."""
    store.set(keys_of("a" * 26).user, "no hash", ex=60)
    assert "damaged" in the_only(found(valkey_server, NEW)).says


def test_the_sample_is_bounded(valkey_server: Valkey, store: redis.Redis, put: Put) -> None:
    """However many records there are, and however many keys are none."""
    put(2500, NEW)
    assert f"{records.SAMPLE} records" in the_only(found(valkey_server, NEW)).says
    store.flushall()
    store.mset({f"{{000}}:tries:{number}": 1 for number in range(40_000)})
    store.config_resetstat()
    assert found(valkey_server, NEW) == []
    assert store.info("commandstats")["cmdstat_scan"]["calls"] < 50  # of 80
    store.flushall()


def test_an_empty_redis_and_one_that_is_away_are_no_matter_of_records(
    valkey_server: Valkey, store: redis.Redis
) -> None:
    """What is wrong with Redis is said elsewhere."""
    assert found(valkey_server, NEW) == []
    assert list(records.examine(Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0"))) == []


def test_a_user_who_may_not_read_records_is_told_so(
    valkey_server: Valkey, store: redis.Redis, put: Put
) -> None:
    """An ACL of one's own that forgot it."""
    put(1, NEW)
    store.execute_command("ACL", "SETUSER", "blind", "on", ">secret", "~*", "+@all", "-scan")
    url = valkey_server.url.replace("://", "://blind:secret@")
    one = the_only(list(records.examine(Settings(redis_url=url))))
    assert (one.level, "+scan" in one.cure) == (Level.NOTE, True)


def test_no_finding_shows_a_key(valkey_server: Valkey, put: Put) -> None:
    """Nor a part of one."""
    put(1, LOST)
    put(1, OLD)
    told = " ".join(one.says + one.cure for one in found(valkey_server, NEW, OLD))
    for secret in (NEW, OLD, LOST):
        assert secret[:5] not in told
