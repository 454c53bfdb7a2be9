"""What `make run` starts, used as a person uses it: by the printed lines, the pages and Ctrl-C."""

import os
import re
import signal
import smtplib
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
import redis
import requests

from app.directory.directory import digest
from tests.support.dev_run import END_WITHIN_S, Run, running, status_of
from tests.support.scan import contradictions, kinds
from tests.support.servers import ROOT
from tests.support.waiting import wait_until

KEY = "a-key-of-the-shop"


def lives(pid: int) -> bool:
    """Whether the process still runs; one that only waits to be reaped by init does not."""
    return status_of(pid)[:1] not in ([], ["Z"])


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def register_with(words: list[str], key: str = "") -> requests.Response:
    """Send what a printed curl command sends."""
    assert words[:2] == ["curl", "-i"]
    printed = (value.partition(": ") for option, value in pairwise(words) if option == "-H")
    headers = {name: value.replace("$KEY", key) for name, _, value in printed}
    body = words[words.index("-d") + 1]
    return requests.post(words[2], data=body.encode(), headers=headers, timeout=15)


def settings_of(pid: int) -> Mapping[str, str]:
    """The environment that a process was started with."""
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """Where a run keeps its data; not there yet."""
    return tmp_path / "instance"


@pytest.fixture
def run(instance: Path, tmp_path: Path) -> Iterator[Run]:
    """A run that is ready, for a test that ends it."""
    with running(instance, tmp_path / "run.log") as started:
        yield started


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run that is ready, for tests that leave it running."""
    folder = tmp_path_factory.mktemp("shared")
    with running(folder / "instance", folder / "run.log") as started:
        yield started


def test_the_printed_lines_register_and_the_mails_arrive_in_both_languages(shared_run: Run) -> None:
    """Each printed command gets 201, and its mail stands on the mailbox's page, newest first."""
    lines = shared_run.curl_lines()
    assert len(lines) == 2
    for words, phrase in zip(
        lines, ("Confirm your email address", "Confirme su correo electrónico"), strict=True
    ):
        answer = register_with(words)
        assert (answer.status_code, answer.json()["delivery"]) == (201, "sent"), answer.text
        newest = shared_run.mails()[0]
        assert newest["recipients"] == ["ada@example.com"]
        assert phrase in newest["text"]
        page = shared_run.mailbox("/").text
        assert page.index(newest["subject"]) < page.index("HTML part")
        assert phrase in page
        assert phrase in shared_run.mailbox(f"/messages/{newest['name']}/html").text
    kept = [file.stem for file in (shared_run.instance / "mail").glob("*.eml")]
    assert [mail["name"] for mail in shared_run.mails()] == sorted(kept, reverse=True)


def test_ctrl_c_leaves_nothing_running_and_nothing_listening(run: Run) -> None:
    """SIGINT ends every process that was started, workers too, and frees every port, with status 0."""
    processes, ports = run.processes(), [*run.ports.values(), run.valkey_port()]
    assert len(processes) > len(run.children()) == 3
    assert all(listens(port) for port in ports)
    assert run.end(signal.SIGINT) == 0
    assert not [pid for pid in processes if lives(pid)]
    assert not [port for port in ports if listens(port)]


def test_gunicorn_finishes_first_and_valkey_shuts_down_in_order(run: Run) -> None:
    """Also on SIGTERM: Valkey's log ends with an orderly shutdown, after gunicorn's last word."""
    assert run.end(signal.SIGTERM) == 0
    assert "Shutting down: Master" in run.output
    valkey_log = (run.instance / "valkey" / "valkey.log").read_text()
    assert "Calling fsync() on the AOF file" in valkey_log
    assert "ready to exit" in valkey_log


def test_the_data_is_kept_between_runs(run: Run, tmp_path: Path) -> None:
    """The next run has the records, the mails and the key, so the same address is the same user."""
    first = register_with(run.curl_lines()[0]).json()
    mails = run.mails()
    run.end()
    with running(run.instance, tmp_path / "again.log") as again:
        assert again.mails() == mails
        with closing(redis.Redis(port=again.valkey_port())) as store:
            assert kinds(store)["user"] == 1
            assert register_with(again.curl_lines()[0]).json()["id"] == first["id"]
            assert kinds(store)["user"] == kinds(store)["number"] == 1
            assert contradictions(store) == []


def test_the_generated_key_is_for_its_owner_only(shared_run: Run) -> None:
    """The folder is 0700, the key file 0600, and the key is in nobody's environment or command line."""
    key_file = shared_run.instance / "secret_key"
    assert stat.S_IMODE(shared_run.instance.stat().st_mode) == 0o700
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert len(key_file.read_text()) >= 32
    settings = settings_of(shared_run.children()["gunicorn"])
    assert settings["SECRET_KEY_FILE"] == str(key_file)
    assert key_file.read_text() not in shared_run.output + "".join(settings.values())


@pytest.mark.parametrize("variable", ["PORT", "SMTP_PORT", "MAILBOX_PORT"])
def test_an_occupied_port_is_refused_before_anything_starts(
    variable: str, instance: Path, tmp_path: Path
) -> None:
    """One sentence names the port and says how to choose another; no folder is made, no program started."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        refused = Run(instance, tmp_path / "refused.log", **{variable: str(port)})
        assert refused.process.wait(END_WITHIN_S) == 2
    assert re.fullmatch(rf"Port {port} cannot be used .*make run {variable}=\d+\n", refused.output), (
        refused.output
    )
    assert not instance.exists()


@pytest.mark.parametrize("value", ["0", "65536", "eight", "-1", "8000.0"])
def test_a_port_that_is_none_is_refused(value: str, instance: Path, tmp_path: Path) -> None:
    """With one sentence that names the variable, not with a traceback."""
    refused = Run(instance, tmp_path / "refused.log", PORT=value)
    assert refused.process.wait(END_WITHIN_S) == 2
    assert refused.output == f"PORT must be a number from 1 to 65535, not '{value}'.\n"


def test_a_second_run_on_the_same_data_is_refused(shared_run: Run, tmp_path: Path) -> None:
    """Two Valkeys would ruin each other's append-only file; the first run goes on."""
    second = Run(shared_run.instance, tmp_path / "second.log")
    assert second.process.wait(END_WITHIN_S) == 2
    assert "in use by another run" in second.output
    assert register_with(shared_run.curl_lines()[0]).status_code == 201


@pytest.mark.parametrize(
    "program",
    [
        "gunicorn",
        pytest.param("valkey-server", marks=pytest.mark.slow),
        pytest.param("dev.mailbox", marks=pytest.mark.slow),
    ],
)
def test_everything_ends_when_one_program_dies(run: Run, program: str) -> None:
    """The exit status says that something went wrong, and nothing is left running."""
    processes = run.processes()
    os.kill(run.children()[program], signal.SIGKILL)
    assert run.process.wait(END_WITHIN_S) == 1
    assert "ended by itself (signal 9)" in run.output
    wait_until(lambda: not [pid for pid in processes if lives(pid)], what="the end of every process")


def test_nothing_is_left_running_when_the_run_itself_is_killed(run: Run) -> None:
    """kill -9 leaves it no time to stop anything; the programs end all the same, Valkey in order."""
    processes = run.processes()
    run.end(signal.SIGKILL)
    wait_until(lambda: not [pid for pid in processes if lives(pid)], END_WITHIN_S, "the end of every process")
    assert "ready to exit" in (run.instance / "valkey" / "valkey.log").read_text()


def test_a_run_whose_parent_has_gone_before_it_knew_starts_nothing(instance: Path) -> None:
    """`make` is killed while Python still loads. Nobody would end the run, and its ports stay in use."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    command = [
        sys.executable,
        "-m",
        "dev.run",
        "--instance",
        str(instance),
        "--end-with-parent",
        str(gone.pid),
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "")
    assert not instance.exists()


def test_the_environment_of_the_caller_sets_the_service_but_not_its_servers(
    instance: Path, tmp_path: Path
) -> None:
    """NUMBER_DIGITS comes through; a REDIS_URL or MAIL_SERVER of another project does not."""
    foreign = {"REDIS_URL": "redis://redis.invalid", "MAIL_SERVER": "mail.invalid", "MAIL_USE_SSL": "true"}
    settings = {"NUMBER_DIGITS": "16", "SECRET_KEY": "x" * 40, **foreign}
    with running(instance, tmp_path / "run.log", **settings) as run:
        assert register_with(run.curl_lines()[0]).status_code == 201
        assert re.search(r"^ +\d{4} \d{4} \d{4} \d{4}\r$", run.mails()[0]["text"], re.MULTILINE)


def test_a_mail_comes_back_by_the_printed_lines(instance: Path, tmp_path: Path) -> None:
    """docs/bounces.md, as it stands there."""
    (lines,) = re.findall(
        r"^```sh\n(.*?)^```", (ROOT / "docs/bounces.md").read_text(), re.MULTILINE | re.DOTALL
    )
    with running(instance, tmp_path / "run.log", BOUNCE_ADDRESS="bounce@acme.example") as run:
        user = register_with(run.curl_lines()[0]).json()["id"]
        for name, port in (("PORT", "8000"), ("MAILBOX_PORT", "8025")):
            lines = lines.replace(port, str(run.ports[name]))
        subprocess.run(["bash", "-euo", "pipefail", "-c", f"KEY=; {lines}"], check=True, capture_output=True)
        found = requests.get(f"http://127.0.0.1:{run.ports['PORT']}/api/users/{user}", timeout=15).json()
        assert found["delivery"] == "bounced"


def test_what_the_service_was_told_is_kept_for_commands_beside_it(instance: Path, tmp_path: Path) -> None:
    """With a key: the printed lines ask for it; commands find the same data and SIGHUP its way."""
    settings = {
        "API_KEYS": f"shop:{digest(KEY)}",
        "NUMBER_DIGITS": "16",
        "MAIL_DEFAULT_SENDER": "A <a@b.example>",
    }
    with running(instance, tmp_path / "run.log", **settings) as run:
        kept = instance / "env"
        assert str(kept) in run.output
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        for words in run.curl_lines():
            assert "Authorization: Bearer $KEY" in words
            assert register_with(words, KEY).status_code == 201
        command = f"set -a; . {kept}; exec {sys.executable} -m flask --app wsgi users show ada@example.com"
        another = {"SECRET_KEY": "x" * 40, "INDEX_KEY": "y" * 40}  # in the terminal, of another project
        for environment in ({}, another):
            found = subprocess.run(
                ["sh", "-c", command],
                cwd=ROOT,
                env={"PATH": "/usr/bin:/bin"} | environment,
                capture_output=True,
                text=True,
            )
            assert (found.returncode, "sent" in found.stdout) == (0, True), found.stderr
        told = settings_of(run.children()["gunicorn"])
        assert set(settings.items()) <= set(told.items())
        assert (instance / "gunicorn.pid").read_text().strip() == str(run.children()["gunicorn"])


def test_the_mailbox_shows_a_hostile_mail_as_harmless_text(shared_run: Run) -> None:
    """Markup in headers is escaped; the HTML part may run and load nothing; odd mails do not break it."""
    with smtplib.SMTP("127.0.0.1", shared_run.ports["SMTP_PORT"], timeout=10) as smtp:
        head = b"Subject: <script>alert(1)</script>\r\nContent-Type: text/html\r\n\r\n"
        smtp.sendmail("", ['"<b>@"@example.com'], head + b"<script>alert(2)</script>\r\n")
        smtp.sendmail(
            "x@example.com", ["y@example.com"], b"Content-Type: text/plain; charset=odd\r\n\r\n\xff\r\n"
        )
        smtp.sendmail("x@example.com", ["y@example.com"], b"")
    empty, odd, hostile = shared_run.mails()[:3]
    assert (empty["subject"], odd["recipients"]) == ("", ["y@example.com"])
    assert (hostile["sender"], hostile["recipients"]) == ("<>", ['"<b>@"@example.com'])
    page = shared_run.mailbox(f"/messages/{hostile['name']}").text
    assert "alert(1)" in page
    assert not re.search(r"<script>|<b>", page)
    part = shared_run.mailbox(f"/messages/{hostile['name']}/html")
    assert "alert(2)" in part.text
    assert part.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert shared_run.mailbox("/messages/none").status_code == 404
    assert shared_run.mailbox("/messages/..%2f..%2fsecret_key").status_code == 404


def test_the_mailbox_answers_no_other_site(shared_run: Run) -> None:
    """A page elsewhere that points its own name at 127.0.0.1 must not read the mails."""
    url = f"http://127.0.0.1:{shared_run.ports['MAILBOX_PORT']}/messages.json"
    assert requests.get(url, headers={"Host": "attacker.example"}, timeout=20).status_code == 400
