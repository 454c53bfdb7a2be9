"""Sealed storage, from the outside: what is on the disk, what a rotation keeps, which starts are refused."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from app.domain.address import Address
from app.domain.number import grouped
from app.errors import SealBroken
from app.repositories.guard import Guard
from app.repositories.keys import SEALED, Names
from app.repositories.records import Sealer
from tests.support.people import Process
from tests.support.problems import assert_problem
from tests.support.records import Records
from tests.support.scan import contradictions, kinds
from tests.support.servers import Gunicorn, MailServer, Valkey, gunicorn

ADA, BOB = "ada@example.com", "bob@example.com"
OLD_KEY = "the secret of last year: forty characters"
NEW_KEY = "the secret of this year: forty characters"


@pytest.fixture
def valkey_server(valkey: Valkey) -> Valkey:
    """One of each test's own."""
    return valkey


def register_people(service: Gunicorn, mail_server: MailServer, people: int) -> list[str]:
    """Registers so many people; returns everything about them that is a secret."""
    addresses = [f"person{one}@example.com" for one in range(people)]
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda address: service.register(address, token=f"token-of-{address}"), addresses)
        assert {answer.status_code for answer in answers} == {201}
    numbers = [mail.number for mail in mail_server.box.mails]
    assert len(set(numbers)) == people
    tokens = [f"token-of-{address}" for address in addresses]
    return [*addresses, *tokens, *numbers, *map(grouped, numbers)]


def what_is_written(valkey: Valkey, service: Gunicorn) -> bytes:
    """Every byte that Valkey and the service have written into files."""
    files = [*(path for path in valkey.folder.rglob("*") if path.is_file()), service.log_path]
    return b"".join(path.read_bytes() for path in files)


def found(secrets: list[str], written: bytes) -> list[str]:
    """Those of which even the beginning stands there: a record keeps what is long in pieces."""
    return [secret for secret in secrets if secret[:20].encode() in written]


@pytest.mark.parametrize("people", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_file_holds_an_address_a_token_or_a_number(
    tmp_path: Path, environment: dict[str, str], valkey: Valkey, mail_server: MailServer, people: int
) -> None:
    """Of so many people, every byte of the append-only file, of Valkey's log and of the service's."""
    with gunicorn(tmp_path, environment | {"SECRET_KEY": NEW_KEY}) as service:
        secrets = register_people(service, mail_server, people)
        written = what_is_written(valkey, service)
    assert len(written) > 500 * people
    assert found(secrets, written) == []
    assert b"example.com" not in written
    assert NEW_KEY.encode() not in written
    assert b"stored_in_clear" not in written


def test_the_same_search_finds_what_is_stored_in_clear(
    tmp_path: Path, environment: dict[str, str], valkey: Valkey, mail_server: MailServer
) -> None:
    """Otherwise the search above would prove nothing. Logs hold nothing even then."""
    with gunicorn(tmp_path, environment) as service:
        secrets = register_people(service, mail_server, 10)
        written = what_is_written(valkey, service)
        log = service.log
    assert found(secrets, written) == secrets[:30]  # nothing is stored in groups
    assert [secret for secret in secrets if secret in log] == []


def test_one_warning_tells_of_storage_in_clear(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """An operator who forgot the key hears of it at the start."""
    with gunicorn(tmp_path, environment) as service:
        assert service.log.count('"stored_in_clear"') == 1


def test_a_rotated_key_loses_nothing(
    tmp_path: Path, environment: dict[str, str], store: redis.Redis, mail_server: MailServer
) -> None:
    """The old key as fallback, the index key pinned: old records open, and everybody is still the same."""
    people = [f"person{one}@example.com" for one in range(20)]
    with gunicorn(tmp_path, environment | {"SECRET_KEY": OLD_KEY}) as service:
        before = {address: service.register(address, token=f"token of {address}") for address in people}
        assert {answer.status_code for answer in before.values()} == {201}

    rotated = {"SECRET_KEY": NEW_KEY, "SECRET_KEY_FALLBACKS": OLD_KEY, "INDEX_KEY": OLD_KEY}
    with gunicorn(tmp_path, environment | rotated) as service:
        for address in people[:10]:
            number = mail_server.box.to(address)[-1].number
            answer = service.post("/api/users/verify", {"email": address, "number": number})
            assert answer.status_code == 200, answer.text
            assert answer.json()["token"] == f"token of {address}"
        for address in people:
            answer = service.register(address, token="new token")
            assert answer.status_code == 201
            assert answer.json()["id"] == before[address].json()["id"]

    assert kinds(store)["user"] == kinds(store)["number"] == 20
    assert contradictions(store) == []
    with_new_key_only = Records(store, NEW_KEY, index_key=OLD_KEY)
    assert [with_new_key_only.number_of(address) for address in people] == [
        mail_server.box.to(address)[-1].number for address in people
    ]


def test_mails_that_were_owed_before_a_rotation_go_out_after_it(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """What is in the outbox was sealed with the old key."""
    mail_server.stop()
    environment |= {"MAIL_TIMEOUT": "1"}
    with gunicorn(tmp_path, environment | {"SECRET_KEY": OLD_KEY}) as service:
        assert service.register(ADA).status_code == 202
    mail_server.start()
    rotated = {"SECRET_KEY": NEW_KEY, "SECRET_KEY_FALLBACKS": OLD_KEY, "INDEX_KEY": OLD_KEY}
    with gunicorn(tmp_path, environment | rotated):
        mail_server.box.wait_for(ADA, timeout_s=20)


def test_a_record_under_another_users_id_hands_out_no_token(
    tmp_path: Path, environment: dict[str, str], store: redis.Redis, mail_server: MailServer
) -> None:
    """Who can write into Redis, but has no key, copies Ada's registration to Bob and knows Bob's mailbox."""
    with gunicorn(tmp_path, environment | {"SECRET_KEY": NEW_KEY}) as service:
        for address in (ADA, BOB):
            assert service.register(address, token=f"token of {address}").status_code == 201
        records = Records(store, NEW_KEY)
        ada, bob = records.keys(ADA), records.keys(BOB)
        for part in SEALED:
            store.hset(bob.user, part, store.hget(ada.user, part) or b"")
        with pytest.raises(SealBroken):
            records.of(BOB)
        number = mail_server.box.to(BOB)[-1].number
        answer = service.post("/api/users/verify", {"email": BOB, "number": number})
        assert answer.status_code != 200
        assert "token of" not in answer.text


FOREIGN: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "another key": ({"SECRET_KEY": OLD_KEY}, {"SECRET_KEY": NEW_KEY}),
    "another index key": (
        {"SECRET_KEY": NEW_KEY, "INDEX_KEY": OLD_KEY},
        {"SECRET_KEY": NEW_KEY, "INDEX_KEY": NEW_KEY},
    ),
    "no key any more": ({"SECRET_KEY": OLD_KEY}, {}),
    "a key where there was none": ({}, {"SECRET_KEY": NEW_KEY}),
}


def ada_is_registered(url: str, SECRET_KEY: str = "", INDEX_KEY: str = "") -> None:  # noqa: N803
    """By a process with these settings, which leaves its mark in Redis."""
    secrets, index = (SECRET_KEY,) if SECRET_KEY else (), INDEX_KEY or SECRET_KEY or None
    process = Process(url, secrets, index)
    Guard(process.client, Names(index), Sealer(secrets)).check()
    process.registered(Address.parse(ADA))
    process.close()


@pytest.mark.parametrize(("first", "second"), FOREIGN.values(), ids=FOREIGN)
def test_a_start_into_the_data_of_another_key_is_refused(
    tmp_path: Path,
    environment: dict[str, str],
    store: redis.Redis,
    first: dict[str, str],
    second: dict[str, str],
) -> None:
    """With a sentence that says why, without a key in it, and with an exit status that tells."""
    ada_is_registered(environment["REDIS_URL"], **first)
    with gunicorn(tmp_path, environment | second, ready=False) as refused:
        assert refused.process.wait(40) != 0
        assert "cedula cannot start" in refused.log
        assert "INDEX_KEY" in refused.log
        assert OLD_KEY not in refused.log
        assert NEW_KEY not in refused.log
        assert "wsgi.py" not in refused.log  # no traceback of ours
    assert kinds(store)["user"] == 1


def test_a_wrong_setting_ends_the_start_with_one_message(tmp_path: Path, environment: dict[str, str]) -> None:
    """Once, and not for ever again from each new worker."""
    wrong = {"SECRET_KEY": "short", "NUMBER_DIGITS": "4"}
    with gunicorn(tmp_path, environment | wrong, ready=False) as refused:
        assert refused.process.wait(40) != 0
        for name in wrong:
            assert f"\n  {name}: " in refused.log
        assert "wsgi.py" not in refused.log  # no traceback of ours


def test_data_of_another_key_that_appears_after_the_start_is_not_touched(
    tmp_path: Path, environment: dict[str, str], valkey: Valkey, mail_server: MailServer
) -> None:
    """Redis was away at the start, so the comparison comes before the first registration."""
    with gunicorn(tmp_path, environment | {"SECRET_KEY": OLD_KEY}) as service:
        assert service.register(ADA).status_code == 201
    valkey.kill()
    with gunicorn(tmp_path, environment | {"SECRET_KEY": NEW_KEY}) as service:
        valkey.start()
        for _ in range(3):
            assert_problem(service.register(BOB), 503, "storage-unavailable")
        assert service.http.get(f"{service.url}/readyz", timeout=20).status_code == 503
    with valkey.client() as client:
        assert kinds(client)["user"] == 1
