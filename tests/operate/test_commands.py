"""The operator's commands: what they tell and change, and that they leave the mailing to the service."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import Result

from app import create_app
from app.config import Settings
from app.repositories.keys import Field, keys_of
from tests.support.people import Process, ada
from tests.support.records import Records
from tests.support.scan import contradictions, kinds
from tests.support.servers import ROOT, MailServer, Valkey


class Operator:
    """Somebody with the service's settings, who registers and gives commands in one process."""

    def __init__(self, redis_url: str, mail_port: int = 1) -> None:
        self._app = create_app(
            Settings(
                redis_url=redis_url,
                redis_timeout_s=0.5,
                mail_server="127.0.0.1",
                mail_port=mail_port,
                mail_default_sender="no-reply@example.com",
            )
        )

    def register(self, address: str, token: str = "t0ken") -> str:
        """The id of the user."""
        answer = self._app.test_client().post("/api/users", json={"email": address, "token": token})
        assert answer.status_code == 201, answer.text
        found: str = answer.get_json()["id"]
        return found

    def __call__(self, *command: str, answer: str = "") -> Result:
        return self._app.test_cli_runner().invoke(args=command, input=answer)

    def stop(self) -> None:
        self._app.extensions["cedula"].stop()


@pytest.fixture
def flask(valkey_server: Valkey, store: redis.Redis, mail_server: MailServer) -> Iterator[Operator]:
    operator = Operator(valkey_server.url, mail_server.port)
    yield operator
    operator.stop()


def run(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    """The command as it is typed."""
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", *command],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_group_is_listed_with_its_help(environment: dict[str, str]) -> None:
    """One place; no group without a word."""
    listed = run(environment, "--help").stdout
    for group in (
        "bounces",
        "doctor",
        "keys",
        "mail",
        "numbers",
        "outbox",
        "services",
        "suppressions",
        "users",
        "version",
    ):
        (line,) = [line for line in listed.splitlines() if line.split()[:1] == [group]]
        assert len(line.split()) > 3, line


def test_a_user_is_shown_by_address_and_by_id(flask: Operator, store: redis.Redis) -> None:
    """What the API tells of it, and neither number nor token."""
    user_id = flask.register("Ada@Example.com", "t0ken-of-ada")
    number = Records(store).number_of("ada@example.com")
    by_address = flask("users", "show", "--json", "ada@example.com")
    by_id = flask("users", "show", "--json", user_id)
    assert by_address.exit_code == 0, by_address.stderr
    assert by_address.stdout == by_id.stdout
    shown = json.loads(by_address.stdout)
    assert (shown["id"], shown["email"], shown["delivery"]) == (user_id, "Ada@example.com", "sent")
    for secret in (number, "t0ken-of-ada"):
        assert secret not in by_address.stdout + by_address.stderr
    assert f"delivery      {shown['delivery']}\n" in flask("users", "show", user_id).stdout


def test_a_user_is_erased_after_a_question(flask: Operator, store: redis.Redis) -> None:
    """No means no; yes erases everything of it but the budgets."""
    flask.register("ada@example.com")
    assert flask("users", "erase", "ada@example.com", answer="n\n").exit_code == 1
    assert kinds(store)["user"] == 1
    assert flask("users", "erase", "ada@example.com", answer="y\n").exit_code == 0
    assert kinds(store)["user"] == kinds(store)["number"] == kinds(store)["outbox"] == 0
    assert contradictions(store) == []
    again = flask("users", "erase", "--yes", "ada@example.com")
    assert (again.exit_code, "Nothing is registered" in again.stderr) == (1, True)


def test_an_address_is_that_of_one_service(
    flask: Operator, valkey_server: Valkey, store: redis.Redis
) -> None:
    """`default`, unless another is named; an id says it all."""
    shop = Process(valkey_server.url, name="shop")
    user_id = shop.registered(ada()).registration.user_id
    shop.close()
    assert "Nothing is registered" in flask("users", "show", "ada@example.com").stderr
    by_address = flask("users", "show", "--json", "--service", "shop", "ada@example.com")
    assert json.loads(by_address.stdout)["id"] == user_id
    assert flask("users", "show", "--json", user_id).stdout == by_address.stdout
    assert flask("users", "erase", "--yes", "ada@example.com").exit_code == 1
    assert flask("users", "erase", "--yes", "--service", "shop", "ada@example.com").exit_code == 0
    assert kinds(store)["user"] == kinds(store)["number"] == kinds(store)["outbox"] == 0


def test_a_record_that_does_not_open_is_erased(flask: Operator, store: redis.Redis) -> None:
    """Only the operator can: it does not tell whose it is."""
    user_id = flask.register("ada@example.com")
    store.hdel(keys_of(user_id).user, "d0", Field.DELIVERY)
    assert flask("users", "show", user_id).exit_code == 1
    assert flask("users", "erase", "--yes", user_id).exit_code == 0
    assert kinds(store)["user"] == kinds(store)["number"] == kinds(store)["outbox"] == 0


def test_who_cannot_be_a_user_is_refused(flask: Operator) -> None:
    """Neither an address nor an id; and an address of whom nothing is known."""
    for command in ("show", "erase"):
        refused = flask("users", command, "ada-at-example")
        assert (refused.exit_code, "Name a user by address" in refused.stderr) == (2, True)
    assert "Nothing is registered" in flask("users", "show", "nobody@example.com").stderr


def test_the_numbers_that_are_taken_are_counted(flask: Operator, store: redis.Redis) -> None:
    """Exactly, overall and in the fullest shard."""
    records = Records(store)
    shard = records.keys("ada@example.com").shard
    for address in ("ada@example.com", *records.addresses_in_shard(shard, 2), "other@example.org"):
        flask.register(address)
    told = flask("numbers", "fill").stdout.splitlines()
    assert told[0].split("\t")[1] == "4 of 900000000"
    assert told[1].split("\t")[1] == f"3 of 900000 in shard {shard:03}"
    assert f"{shard:03}\t3\t0.000333%" in flask("numbers", "fill", "--shards").stdout.splitlines()


def test_a_key_that_others_have_spoiled_keeps_no_other_mail_from_being_retried(
    flask: Operator, store: redis.Redis
) -> None:
    """Redis answers, and says so of this key alone."""
    users = [flask.register(f"{name}@example.com") for name in ("ada", "bob", "cleo")]
    for user_id in users:
        store.hset(keys_of(user_id).user, Field.DELIVERY, "failed")
    spoiled = users[1]
    store.rpush(keys_of(spoiled).sender, "somebody else's")
    store.expire(keys_of(spoiled).sender, 60)
    found = flask("outbox", "retry", "--failed")
    assert (found.exit_code, found.stdout.splitlines()[-1]) == (1, "2 mails are due now")
    assert f"{spoiled} cannot be retried" in found.stderr
    assert "Error: Somebody else has written to a key of the user; see" in found.stderr
    for command in (("outbox", "retry", spoiled), ("outbox", "drop", spoiled)):
        found = flask(*command)
        assert (found.exit_code, "Somebody else has written" in found.stderr) == (1, True)


def test_a_redis_that_is_away_is_a_sentence() -> None:
    """Not a traceback, and it leads to the doctor."""
    away = Operator("redis://127.0.0.1:1/0")
    for command in (("users", "show", "ada@example.com"), ("numbers", "fill")):
        found = away(*command)
        assert found.exit_code == 1
        assert "Redis does not answer" in found.stderr
        assert "doctor" in found.stderr
    away.stop()


def test_a_command_mails_nothing(
    environment: dict[str, str], store: redis.Redis, mail_server: MailServer
) -> None:
    """What is owed stays owed: the relay belongs to the service, whose lock no command takes."""
    assert run(environment, "outbox", "list").returncode == 0
    assert store.exists("cedula:relay") == 0
    assert mail_server.box.mails == []


SERVICES = f"""
[shop]
keys = ["{"a" * 64}", "next:{"b" * 64}"]
name = "Müller & Söhne"

[club]
keys = ["{"c" * 64}"]
name = "The club"
sender = "no-reply@club.example"
locale = "es"
number_ttl = 600
verify_limit = ""
client_limit = "1/second, 9/minute"
test = true
events_url = "https://club.example:8443/hooks/secret"
events_secrets = ["whsec_{"s" * 32}"]
"""

AWAY = {"REDIS_URL": "redis://127.0.0.1:1/0", "MAIL_DEFAULT_SENDER": "no-reply@example.com"}


SHOWN = [
    row.split("|")
    for row in (
        "service|name|sender|locale|address|verify|client|ttl|test|events|keys",
        "default|example.com|no-reply@example.com|en|10/3600s|5/900s|-|86400|-|-|closed",
        'shop|Müller & Söhne|"Müller & Söhne" <no-reply@example.com>|en|10/3600s|5/900s|-|86400|-|-|2',
        "club|The club|The club <no-reply@club.example>|es|10/3600s|-|1/1s,9/60s|600|test|club.example|1",
    )
]


def test_the_services_of_a_file_are_shown(tmp_path: Path) -> None:
    """What a table says and what it leaves out, without a digest, and of where events go the host; Redis
    is not asked."""
    file = tmp_path / "services.toml"
    file.write_text(SERVICES)
    for found in (
        run(AWAY, "services", "check", str(file)),
        run(AWAY | {"SERVICES_FILE": str(file)}, "services", "check"),
    ):
        assert found.returncode == 0, found.stderr
        assert [re.split("  +", line) for line in found.stdout.splitlines()] == SHOWN
        assert found.stderr == ""


def test_what_is_wrong_in_a_file_is_told_although_it_stops_the_service(tmp_path: Path) -> None:
    """Everything, with lines; what is right is shown all the same. Exit code 1."""
    file = tmp_path / "services.toml"
    file.write_text(SERVICES + "colour = 1\n[Bank]\n")
    found = run(AWAY | {"SERVICES_FILE": str(file)}, "services", "check")
    assert found.returncode == 1
    for says in ("[club] colour, line 17: ", "[Bank], line 18: ", "[Bank] keys, line 18: Must be set."):
        assert f"  SERVICES_FILE {says}" in found.stderr
    assert [line.split()[0] for line in found.stdout.splitlines()] == ["service", "default", "shop"]
    assert "a" * 64 not in found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    missing = run(AWAY, "services", "check", str(tmp_path / "missing"))
    assert (missing.returncode, "no such file" in missing.stderr) == (1, True)


def test_wrong_settings_are_told_before_the_file_is_read() -> None:
    """The file falls back to them."""
    found = run({"NUMBER_DIGITS": "3"}, "services", "check")
    assert (found.returncode, "NUMBER_DIGITS: " in found.stderr) == (1, True)


def test_without_a_file_there_is_nothing_to_check() -> None:
    """Somebody has forgotten to say which."""
    found = run(AWAY, "services", "check")
    assert (found.returncode, found.stdout) == (1, "")
    assert "SERVICES_FILE is not set: nothing to check" in found.stderr


@pytest.mark.parametrize("command", [("keys", "new", "shop"), ("mail", "preview", "--into")], ids=" ".join)
def test_a_command_that_uses_no_store_works_without_it(command: tuple[str, ...], tmp_path: Path) -> None:
    """And says nothing of it."""
    more = [str(tmp_path)] if command[-1] == "--into" else []
    found = run(AWAY, *command, *more)
    assert (found.returncode, found.stderr) == (0, "")


def test_commands_look_whose_data_it_is_before_they_use_it(valkey_server: Valkey, store: redis.Redis) -> None:
    """A key is made whatever is stored; a user is looked for only in one's own data."""
    ours, theirs = ({"REDIS_URL": valkey_server.url, "INDEX_KEY": letter * 40} for letter in "ab")
    for command in (("users", "show", "ada@example.com"), ("outbox", "list"), ("suppressions", "list")):
        assert "another INDEX_KEY" not in run(ours, *command).stderr
        refused = run(theirs, *command)
        assert (refused.returncode, "another INDEX_KEY" in refused.stderr) == (1, True)
        assert "Traceback" not in refused.stderr
    assert run(theirs, "keys", "new", "shop").returncode == 0


def test_a_key_may_be_called_like_a_command() -> None:
    """Which command is asked for is decided by the first word that is one."""
    found = run(AWAY, "keys", "new", "services")
    assert (found.returncode, "services:" in found.stdout) == (0, True)


@pytest.mark.parametrize(
    "command", [("keys", "new", "run"), ("mail", "preview", "--service", "run")], ids=" ".join
)
def test_a_key_or_service_that_is_called_run_starts_nothing(command: tuple[str, ...]) -> None:
    """As any other command it leaves relays and senders to those who serve."""
    found = run(AWAY, *command)
    assert "redis_away_at_start" not in found.stdout + found.stderr


@pytest.mark.parametrize(
    "command",
    [("version",), ("keys", "new", "shop"), ("outbox", "list"), ("suppressions", "list")],
    ids=" ".join,
)
def test_an_output_that_is_full_is_a_line(environment: dict[str, str], command: tuple[str, ...]) -> None:
    """As the disk of a log may be; no traceback."""
    found = run_into("/dev/full", environment, *command)
    assert (found.returncode, found.stderr) == (1, "Error: the output: No space left on device\n")


def test_doctor_tells_by_its_exit_code_although_its_output_is_full(environment: dict[str, str]) -> None:
    """1 would be a warning."""
    away = environment | {"REDIS_URL": "redis://127.0.0.1:1/0"}
    found = run_into("/dev/full", away, "doctor", "--no-dns")
    assert (found.returncode, found.stderr) == (2, "")


def run_into(path: str, environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    """With the output in a file."""
    line = shlex.join([sys.executable, "-m", "flask", "--app", "wsgi", *command])
    return subprocess.run(
        ["/bin/sh", "-c", f"{line} >{path}"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
