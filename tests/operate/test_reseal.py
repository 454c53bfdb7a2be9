"""`flask keys reseal`: afterwards every record opens with the new key alone, and nothing else has changed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass

import pytest
import redis
from click.testing import Result

from app import create_app
from app.config import Settings
from app.domain.address import Address
from app.domain.service import DEFAULT
from app.errors import SealBroken
from app.repositories.keys import SEALED, Names
from app.repositories.records import Sealer
from app.repositories.seals import Seals, Verdict
from app.storage.storage import Storage
from tests.support.records import Records
from tests.support.scan import contradictions
from tests.support.servers import ROOT, MailServer, Valkey
from tests.support.topologies import Cluster, SentinelPair
from tests.support.values import text
from tests.support.waiting import wait_until

OLD, NEW, LOST = "o" * 40, "n" * 40, "l" * 40
PEOPLE = [f"person{one}@example.com" for one in range(40)]


@dataclass
class House:
    """One process with these keys, beside others on the same Redis."""

    url: str
    secrets: tuple[str, ...]
    mail_port: int = 1

    def __post_init__(self) -> None:
        self.app = create_app(
            Settings(
                redis_url=self.url,
                secret_key=self.secrets[0] if self.secrets else "",
                secret_key_fallbacks=self.secrets[1:],
                index_key=OLD,
                mail_server="127.0.0.1",
                mail_port=self.mail_port,
                mail_default_sender="no-reply@example.com",
                number_ttl_s=3600,
            )
        )

    def register(self, *people: str) -> None:
        client = self.app.test_client()
        for address in people:
            answer = client.post("/api/users", json={"email": address, "token": f"token of {address}"})
            assert answer.status_code in (201, 202), answer.text

    def post(self, path: str, body: object) -> int:
        return self.app.test_client().post(path, json=body).status_code

    def reseal(self, *options: str) -> Result:
        return self.app.test_cli_runner().invoke(args=("keys", "reseal", *options))

    def stop(self) -> None:
        self.app.extensions["cedula"].stop()


@pytest.fixture
def houses(valkey_server: Valkey, store: redis.Redis, mail_server: MailServer) -> Iterator[list[House]]:
    """A process from before the rotation, and one from after it."""
    made = [House(valkey_server.url, secrets, mail_server.port) for secrets in ((OLD,), (NEW, OLD))]
    yield made
    for house in made:
        house.stop()


def counted(result: Result) -> dict[str, int]:
    """The summary."""
    return {
        name: int(count) for name, _, count in (line.partition("\t") for line in result.stdout.splitlines())
    }


def opens_with(client: redis.Redis | Storage, secret: str) -> dict[str, str]:
    """The tokens of the people whose record opens with this key alone."""
    records = Records(client, secret, index_key=OLD)
    found = {}
    for address in PEOPLE:
        try:
            stored = records.of(address)
        except SealBroken:
            continue
        if stored is not None:
            found[address] = stored.token
    return found


def everything(client: redis.Redis) -> dict[bytes, object]:
    """What is stored, without the seals: fields and when each key ends."""
    found: dict[bytes, object] = {}
    for key in client.scan_iter():
        fields = client.hgetall(key) if client.type(key) == b"hash" else {}
        kept = {name: value for name, value in fields.items() if text(name) not in SEALED}
        found[key] = (kept, {name: len(fields[name]) for name in fields}, client.pexpiretime(key))
    return found


def test_every_record_opens_with_the_new_key_alone(houses: list[House], store: redis.Redis) -> None:
    """Short tokens and long ones, mailed or pending; all that is not the seal stays as it was."""
    before, after = houses
    before.register(*PEOPLE)
    before.post("/api/users", {"email": PEOPLE[0], "token": "t" * 4096})
    kept = everything(store)
    result = after.reseal()
    assert (result.exit_code, counted(result)["sealed anew"]) == (0, len(PEOPLE)), result.stderr
    assert everything(store) == kept
    expected = {address: f"token of {address}" for address in PEOPLE} | {PEOPLE[0]: "t" * 4096}
    assert opens_with(store, NEW) == expected
    assert opens_with(store, OLD) == {}
    again = after.reseal()
    assert (counted(again)["sealed anew"], counted(again)["sealed so already"]) == (0, len(PEOPLE))


def test_nothing_is_written_without_a_key(valkey_server: Valkey, store: redis.Redis) -> None:
    """Data in clear stays in clear: the start refuses the mixture, and so does the command."""
    house = House(valkey_server.url, ())
    try:
        result = house.reseal()
    finally:
        house.stop()
    assert (result.exit_code, "SECRET_KEY" in result.stderr) == (1, True)


def test_a_record_that_does_not_open_is_left_and_told(houses: list[House], store: redis.Redis) -> None:
    """A lost key, a newer version, the wrong type: the rest is done, and the exit code is 1."""
    before, after = houses
    before.register(*PEOPLE[:5])
    keys = [Records(store, OLD, index_key=OLD).keys(address) for address in PEOPLE[:3]]
    sealed = Sealer([LOST]).seal(b"en\n1\nada@example.com\nt", keys[0].user_id)
    store.hset(keys[0].user, "d0", sealed)
    store.hset(keys[1].user, "v", 99)
    store.delete(keys[2].user)
    store.set(keys[2].user, "no hash", ex=60)
    result = after.reseal()
    assert result.exit_code == 1
    assert counted(result) == {
        "looked at": 5,
        "sealed anew": 2,
        "sealed so already": 0,
        "changed meanwhile": 0,
        "key not configured": 1,
        "in clear": 0,
        "of a newer version": 1,
        "damaged": 1,
    }
    assert store.hget(keys[0].user, "d0") == sealed
    assert "doctor" in result.stderr


def test_a_record_that_was_replaced_or_erased_meanwhile_is_left_alone(
    valkey_server: Valkey, store: redis.Redis, houses: list[House]
) -> None:
    """Between reading and writing the address registers anew, or is erased: neither is undone."""
    before, after = houses
    before.register(*PEOPLE[:2])
    seals = Seals(Storage(valkey_server.url, 2.0), Sealer([NEW, OLD]))
    keys = {address: Records(store, OLD, index_key=OLD).keys(address) for address in PEOPLE[:2]}
    read = {found.user_id: found for found in seals.read([one.user_id for one in keys.values()])}
    after.post("/api/users", {"email": PEOPLE[0], "token": "a new one"})
    store.delete(keys[PEOPLE[1]].user)
    for one in keys.values():
        assert seals.reseal(read[one.user_id]) is Verdict.CHANGED
    assert not store.exists(keys[PEOPLE[1]].user)
    stored = Records(store, NEW, index_key=OLD).of(PEOPLE[0])
    assert stored is not None
    assert stored.token == "a new one"


def test_it_survives_a_script_flush(valkey_server: Valkey, store: redis.Redis, houses: list[House]) -> None:
    """Redis forgets the script between two records."""
    before, _ = houses
    before.register(*PEOPLE[:2])
    seals = Seals(Storage(valkey_server.url, 2.0), Sealer([NEW, OLD]))
    for record in seals.read(
        [Names(OLD).user(DEFAULT, Address.parse(address)).user_id for address in PEOPLE[:2]]
    ):
        store.script_flush("SYNC")
        assert seals.reseal(record) is Verdict.RESEALED


def test_it_runs_beside_registering_verifying_and_erasing(
    houses: list[House], store: redis.Redis, mail_server: MailServer
) -> None:
    """Nobody's answer is lost, nobody comes back, and all that is left opens with the new key."""
    before, after = houses
    before.register(*PEOPLE)
    stop = threading.Event()

    def busy(address: str) -> list[int]:
        after.post("/api/users", {"email": address, "token": f"token of {address}"})
        number = mail_server.box.to(address)[-1].number
        return [after.post("/api/users/verify", {"email": address, "number": number}) for _ in range(2)]

    def resealing() -> None:
        seals = Seals(Storage(before.url, 2.0), Sealer([NEW, OLD]))
        while not stop.is_set():
            for record in seals.read(seals.user_ids()):
                seals.reseal(record)

    with ThreadPoolExecutor(5) as threads:
        sealing = [threads.submit(resealing) for _ in range(2)]
        answers = list(threads.map(busy, PEOPLE[:30]))
        stop.set()
    for one in sealing:
        one.result()
    assert answers == [[200, 403]] * 30
    assert counted(after.reseal())["sealed anew"] == 0
    assert set(opens_with(store, NEW)) == set(PEOPLE[30:])
    assert contradictions(store) == []


@contextmanager
def resealing(environment: dict[str, str], rate: int) -> Iterator[subprocess.Popen[str]]:
    """The command as it is typed, after the rotation."""
    settings = {"SECRET_KEY": NEW, "SECRET_KEY_FALLBACKS": OLD, "INDEX_KEY": OLD, "NUMBER_TTL": "3600"}
    with subprocess.Popen(
        # A program that was started in the background of a shell ignores SIGINT, and so do its children.
        [
            "env",
            "--default-signal=INT",
            sys.executable,
            "-m",
            "flask",
            "--app",
            "wsgi",
            "keys",
            "reseal",
            "--rate",
            str(rate),
        ],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGINT])
def test_an_end_in_the_middle_loses_nothing_and_the_next_run_goes_on(
    houses: list[House], store: redis.Redis, environment: dict[str, str], ended_by: signal.Signals
) -> None:
    """kill -9 or Ctrl-C while it works slowly; started again it seals the rest."""
    before, _ = houses
    before.register(*PEOPLE)
    with resealing(environment, rate=10) as slow:
        wait_until(lambda: len(opens_with(store, NEW)) >= 5, 30, "some are sealed anew")
        slow.send_signal(ended_by)
        told = slow.communicate(timeout=30)[1]
        assert slow.returncode != 0
    assert ("begin again" in told) == (ended_by == signal.SIGINT)
    done = opens_with(store, NEW)
    assert 5 <= len(done) < len(PEOPLE)
    assert set(done) | set(opens_with(store, OLD)) == set(PEOPLE)
    with resealing(environment, rate=1000) as rest:
        summary, told = rest.communicate(timeout=60)
        assert rest.returncode == 0, told
    assert f"sealed anew\t{len(PEOPLE) - len(done)}\n" in summary
    assert set(opens_with(store, NEW)) == set(PEOPLE)


def test_a_redis_that_dies_meanwhile_is_a_sentence(
    valkey: Valkey, environment: dict[str, str], mail_server: MailServer
) -> None:
    """Not a traceback; when it is back, the next run seals the rest."""
    before = House(valkey.url, (OLD,), mail_server.port)
    try:
        before.register(*PEOPLE)
        with (
            closing(valkey.client()) as client,
            resealing(environment | {"REDIS_URL": valkey.url}, 10) as slow,
        ):
            wait_until(lambda: len(opens_with(client, NEW)) >= 5, 30, "some are sealed anew")
            valkey.kill()
            told = slow.communicate(timeout=30)[1]
            assert slow.returncode == 1
        assert "Redis does not answer" in told
        assert "Traceback" not in told
        valkey.start()
        after = House(valkey.url, (NEW, OLD))
        assert after.reseal().exit_code == 0
        after.stop()
        with closing(valkey.client()) as client:
            assert set(opens_with(client, NEW)) == set(PEOPLE)
    finally:
        before.stop()


def test_the_rate_is_kept_and_progress_is_told(houses: list[House]) -> None:
    """Twenty records at ten a second take two seconds, and a line says how far it is."""
    before, after = houses
    before.register(*PEOPLE[:20])
    pauses: list[float] = []
    found = list(after.app.extensions["cedula"].seals.reseal_all(10, pause=pauses.append, clock=lambda: 0.0))
    assert sum(pauses) >= 2.0 * 0.9
    assert found[-1][Verdict.RESEALED] == 20
    assert "looked at" in after.reseal("--rate", "1000").stderr


# More than one server


@pytest.mark.slow
def test_it_seals_a_whole_cluster_anew(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every master's records."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), replicas=False)
    try:
        sealed_anew(cluster.url)
    finally:
        cluster.stop()


@pytest.mark.slow
def test_it_seals_anew_through_sentinels(tmp_path_factory: pytest.TempPathFactory) -> None:
    """On whoever is master."""
    pair = SentinelPair(tmp_path_factory.mktemp("pair"))
    try:
        sealed_anew(pair.url)
    finally:
        pair.stop()


def sealed_anew(url: str) -> None:
    before, after = (House(url, secrets) for secrets in ((OLD,), (NEW, OLD)))
    try:
        before.register(*PEOPLE)
        assert counted(after.reseal())["sealed anew"] == len(PEOPLE)
        with closing(Storage(url, 2.0)) as client:
            assert set(opens_with(client, NEW)) == set(PEOPLE)
    finally:
        before.stop()
        after.stop()
