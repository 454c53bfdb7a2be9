"""The guard: a process writes only into data that its own keys made."""

import pytest
import redis

from app import create_app, start
from app.config import Settings
from app.errors import StorageUnavailable, WrongIndexKey
from app.repositories.guard import Guard
from app.repositories.keys import KEY_CHECK, Names
from app.repositories.records import Sealer
from app.storage.storage import Storage
from tests.support.servers import Valkey, free_port
from tests.support.storage import storage_of

KEY = "an index key that is long enough to be one"
OTHER_KEY = "another index key, also long enough to be one"


def guard(store: redis.Redis | Storage, index_key: str | None = KEY, *secrets: str) -> Guard:
    storage = store if isinstance(store, Storage) else storage_of(store)
    return Guard(storage, Names(index_key), Sealer(secrets or ((index_key,) if index_key else ())))


def test_the_first_process_marks_the_data_and_the_next_with_the_same_key_passes(store: redis.Redis) -> None:
    """A restart, a second worker, a second machine."""
    guard(store).check()
    guard(store).check()


def test_another_index_key_is_refused(store: redis.Redis) -> None:
    """It would name every address anew: nobody would be found, and numbers would be given out twice."""
    guard(store, KEY).check()
    with pytest.raises(WrongIndexKey):
        guard(store, OTHER_KEY).check()
    guard(store, KEY).check()


@pytest.mark.parametrize(("first", "second"), [(KEY, None), (None, KEY)], ids=["sealed", "in clear"])
def test_sealed_and_clear_data_do_not_mix(store: redis.Redis, first: str | None, second: str | None) -> None:
    """Neither would open the other's records."""
    guard(store, first).check()
    with pytest.raises(WrongIndexKey):
        guard(store, second).check()


def test_another_secret_key_with_the_same_index_key_passes(store: redis.Redis) -> None:
    """That is a rotation."""
    guard(store, KEY, KEY).check()
    guard(store, KEY, OTHER_KEY, KEY).check()


def test_the_mark_tells_nothing_about_the_key(store: redis.Redis) -> None:
    """It stands in Redis, where the key must not."""
    guard(store).check()
    (mark,) = store.keys("cedula:*")
    assert KEY.encode() not in (store.get(mark) or b"")


def test_what_has_passed_is_not_asked_again(valkey: Valkey) -> None:
    """The check costs a registration nothing; also none where Redis has just gone away."""
    passed = guard(Storage(valkey.url, 1.0))
    passed.check()
    valkey.stop()
    passed.check()


def test_a_redis_that_does_not_answer_is_checked_later(store: redis.Redis) -> None:
    """Away is not the same as wrong: the start goes on, and requests get 503."""
    away = guard(Storage(f"redis://127.0.0.1:{free_port()}/0", 0.5))
    with pytest.raises(StorageUnavailable) as refused:
        away.check()
    assert not isinstance(refused.value, WrongIndexKey)


def test_a_mark_that_redis_lost_is_left_again(store: redis.Redis) -> None:
    """FLUSHALL, or a failover to a replica that had nothing yet."""
    passed = guard(store)
    passed.check()
    store.flushall()
    passed.check_again()
    with pytest.raises(WrongIndexKey):
        guard(store, OTHER_KEY).check()


FORMER = [
    f"{Names(KEY).check_value()}:sealed",
    f"{Names(KEY).check_value()}:sealed:1",
    f"{Names(KEY).check_value()}:sealed:3",
]
"""What a version leaves that names users otherwise; the first one's value had no version."""


@pytest.mark.parametrize("value", FORMER, ids=["without a version", "of version 1", "of a later version"])
def test_data_whose_names_are_of_another_version_is_refused(store: redis.Redis, value: str) -> None:
    """With the right key, too: nobody would be found under the names of this version. The message says where
    to read on."""
    store.set(KEY_CHECK, value)
    with pytest.raises(WrongIndexKey, match=r"docs/operate\.md, Versions of the layout"):
        guard(store).check()
    assert store.get(KEY_CHECK) == value.encode()


def test_a_start_on_data_of_another_version_is_refused(valkey_server: Valkey, store: redis.Redis) -> None:
    """The process ends, with the message."""
    store.set(KEY_CHECK, FORMER[0])
    with pytest.raises(WrongIndexKey, match=r"docs/operate\.md"):
        start(create_app(Settings(redis_url=valkey_server.url, secret_key=KEY, index_key=KEY)))


def test_data_of_another_version_that_appears_later_is_a_503(valkey: Valkey) -> None:
    """Redis was away at the start and comes back with the data of another version: nothing is written."""
    valkey.stop()
    app = create_app(Settings(redis_url=valkey.url, secret_key=KEY, index_key=KEY))
    try:
        valkey.start()
        with valkey.client() as client:
            client.set(KEY_CHECK, FORMER[0])
            answer = app.test_client().post("/api/users", json={"email": "ada@example.com", "token": "t"})
            assert answer.status_code == 503
            assert client.keys() == [KEY_CHECK.encode()]
    finally:
        app.extensions["cedula"].stop()


def test_readiness_is_a_write(store: redis.Redis) -> None:
    """A Redis that only answers is not enough to register anybody."""
    guard(store).ready()
    assert store.ttl("cedula:ready") > 0
