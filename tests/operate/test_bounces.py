"""`flask bounces read` and `flask suppressions`: as a mail server runs the one and a person the other."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import redis

from tests.support.bounces import BOUNCE_ADDRESS, INDEX, postfix, read_by_command
from tests.support.faults.redis import everything
from tests.support.servers import ROOT, Gunicorn, MailServer, Valkey, gunicorn
from tests.support.waiting import wait_until
from tests.unit.test_reports import TAG, VERDICTS, fixture

ADA = "ada@example.com"


@pytest.fixture
def tagged(environment: dict[str, str]) -> dict[str, str]:
    """The settings of a service that knows its mails again."""
    return environment | {"BOUNCE_ADDRESS": BOUNCE_ADDRESS, "INDEX_KEY": INDEX}


@pytest.fixture
def bouncing(tmp_path: Path, tagged: dict[str, str]) -> Iterator[Gunicorn]:
    with gunicorn(tmp_path, tagged) as server:
        yield server


def bounce_of(mail_server: MailServer, name: str = "postfix-unknown-user") -> bytes:
    """A fixture about the last mail to Ada."""
    tag = mail_server.box.wait_for(ADA)[-1].sender.partition("@")[0].partition("+")[2]
    return fixture(name).replace(TAG.encode(), tag.encode())


def command(environment: Mapping[str, str], *words: str) -> "subprocess.CompletedProcess[bytes]":
    return read_by_command(environment, b"", *words)


def test_a_bounce_is_read_from_a_pipe_and_its_suppression_lifted_by_hand(
    bouncing: Gunicorn, tagged: dict[str, str], mail_server: MailServer
) -> None:
    """By address or id. Twice the same report is one."""
    user_id = bouncing.register(ADA).json()["id"]
    for _ in range(2):
        found = read_by_command(tagged, bounce_of(mail_server))
        assert (found.returncode, found.stdout) == (0, b"bounced noted\n")
    looked_up = bouncing.http.get(f"{bouncing.url}/api/users/{user_id}", timeout=10).json()
    assert looked_up["delivery"] == "bounced"
    assert bouncing.register(ADA).status_code == 422
    listed = command(tagged, "suppressions", "list")
    row = listed.stdout.decode().splitlines()[-1].split("\t")
    assert (row[0], row[1], row[2]) == (user_id, "bounced", looked_up["reported_at"])
    assert row[3] > row[2]
    assert b"1 addresses" in listed.stderr
    assert ADA.encode() not in listed.stdout
    for user, status in ((ADA, 0), (ADA, 1), (user_id, 1), ("nobody", 2)):
        assert command(tagged, "suppressions", "lift", user).returncode == status
    assert bouncing.register(ADA).status_code == 201


@pytest.mark.parametrize("name", ["out-of-office-german", "postfix-unknown-user"])
def test_what_is_no_report_of_ours_is_ignored(tagged: dict[str, str], store: redis.Redis, name: str) -> None:
    """An answer of a person, a mail of somebody else: exit code 0, or the mail server would send it back."""
    before = everything(store)
    found = read_by_command(tagged, fixture(name))
    assert found.returncode == 0
    assert everything(store).keys() - before.keys() <= {b"cedula:keycheck", b"cedula:counts"}
    kind, _ = VERDICTS[name]
    outcome = b"no_tag" if kind == "bounced" else b"ignored"
    assert found.stdout.splitlines()[-1] == kind.value.encode() + b" " + outcome


def test_a_message_of_any_size_is_read_to_its_end(
    bouncing: Gunicorn, tagged: dict[str, str], mail_server: MailServer
) -> None:
    """A mail server takes a closed pipe for a failure. Nothing is kept of it."""
    bouncing.register(ADA)
    found = read_by_command(tagged, bounce_of(mail_server) + b"x" * 40_000_000)
    assert (found.returncode, found.stdout.splitlines()[-1]) == (0, b"bounced noted")


def test_while_redis_is_away_the_mail_server_keeps_the_report(
    tmp_path: Path, valkey: Valkey, mail_server: MailServer
) -> None:
    """75, EX_TEMPFAIL, and a line without a traceback; later the same report counts."""
    environment = {
        "REDIS_URL": valkey.url,
        "MAIL_SERVER": mail_server.host,
        "MAIL_PORT": str(mail_server.port),
        "BOUNCE_ADDRESS": BOUNCE_ADDRESS,
        "INDEX_KEY": INDEX,
        "REDIS_TIMEOUT": "1",
        "FLASK_SKIP_DOTENV": "1",
    }
    with gunicorn(tmp_path, environment) as server:
        server.register(ADA)
        message = bounce_of(mail_server)
        valkey.kill()
        found = read_by_command(environment, message)
        assert found.returncode == 75
        assert b"Try again" in found.stderr
        assert b"Traceback" not in found.stdout + found.stderr
        valkey.start()
        assert read_by_command(environment, message).returncode == 0


def test_a_wrong_setting_loses_no_report_where_the_pipe_is_set_up_as_documented() -> None:
    """`|| exit 75` stands behind the command: a mail server takes most other codes for a refusal."""
    environment = {"BOUNCE_ADDRESS": "wrong", "PATH": "/usr/bin:/bin"}
    line = f"{sys.executable} -m flask --app wsgi bounces read || exit 75"
    found = subprocess.run(["/bin/sh", "-c", line], env=environment, input=b"x", capture_output=True)
    assert found.returncode == 75


@pytest.mark.parametrize("log", [">/dev/full 2>&1", "2>&1 | :"], ids=["full", "closed"])
@pytest.mark.parametrize(
    ("redis_url", "status"), [("", 0), ("redis://127.0.0.1:1/0", 75)], ids=["done", "away"]
)
def test_an_outcome_that_cannot_be_written_down_is_the_same(
    tagged: dict[str, str], redis_url: str, status: int, log: str
) -> None:
    """A disk that is full can stop Redis and the log alike; then the mail server brings the report again."""
    line = f"{sys.executable} -m flask --app wsgi bounces read {log}"
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=ROOT,
        env=tagged | ({"REDIS_URL": redis_url} if redis_url else {}),
        input=fixture("postfix-unknown-user"),
        timeout=60,
    )
    assert ended.returncode == status


def test_a_command_with_a_wrong_index_key_loses_no_report(
    bouncing: Gunicorn, tagged: dict[str, str], mail_server: MailServer
) -> None:
    """It knows no tag of ours, and must not take that for somebody else's mail."""
    bouncing.register(ADA)
    found = read_by_command(tagged | {"INDEX_KEY": INDEX[::-1]}, bounce_of(mail_server))
    assert (found.returncode, found.stdout) == (75, b"")
    assert b"WrongIndexKey" in found.stderr
    assert read_by_command(tagged, bounce_of(mail_server)).stdout == b"bounced noted\n"


@pytest.mark.system
def test_a_real_postfix_bounces_a_mail_and_its_report_counts(
    tmp_path: Path, valkey_server: Valkey, store: redis.Redis
) -> None:
    """From the registration to `delivery: bounced`, with nothing written by hand: in a second or two."""
    with postfix() as server:
        environment = {
            "REDIS_URL": valkey_server.url,
            "MAIL_SERVER": "127.0.0.1",
            "MAIL_PORT": str(server.port),
            "MAIL_DEFAULT_SENDER": "Acme <no-reply@acme.example>",
            "BOUNCE_ADDRESS": BOUNCE_ADDRESS,
            "INDEX_KEY": INDEX,
            "FLASK_SKIP_DOTENV": "1",
        }
        server.start(environment)
        with gunicorn(tmp_path, environment) as service:
            registered = service.register("nobody-here@example.com")
            assert (registered.status_code, registered.json()["delivery"]) == (201, "sent")
            started = time.monotonic()
            url = f"{service.url}/api/users/{registered.json()['id']}"
            wait_until(
                lambda: service.http.get(url, timeout=10).json()["delivery"] == "bounced", 30, "it bounced"
            )
            print(f"bounced after {time.monotonic() - started:.1f} s")  # noqa: T201 - shown with `-s`
            assert service.http.get(url, timeout=10).json()["mail_error"] == "bounced 5.1.1"
            assert service.register("nobody-here@example.com").status_code == 422
        assert wait_until(lambda: server.codes) == [0]
        wait_until(lambda: "status=sent (delivered via cedula service)" in server.log, 30, server.log)
