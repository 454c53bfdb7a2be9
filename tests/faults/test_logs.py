"""Log lines that cannot be written: the service starts, registers, mails, verifies and stops all the same."""

import json
from pathlib import Path

import pytest
import requests

from tests.support.faults.logs import FAULTS, file_that_is_full
from tests.support.metrics import scraped
from tests.support.servers import Gunicorn, MailServer, gunicorn
from tests.support.waiting import wait_until

LINES_A_PIPE_HOLDS = 331
DROPPED = "cedula_log_lines_dropped_total"


def ask_often(service: Gunicorn, times: int = LINES_A_PIPE_HOLDS + 100) -> None:
    for _ in range(times):
        assert service.http.get(f"{service.url}/healthz", timeout=20).ok


def goes_through(service: Gunicorn, mail_server: MailServer, address: str) -> None:
    """Registers an address, reads its mail and gets its token back."""
    assert service.register(address, token="t0ken").status_code == 201
    number = mail_server.box.wait_for(address)[0].number
    answer = service.post("/api/users/verify", {"email": address, "number": number})
    assert (answer.status_code, answer.json().get("token")) == (200, "t0ken")


@pytest.mark.parametrize(
    "arguments", [(), pytest.param(("--preload",), marks=pytest.mark.slow)], ids=["", "preload"]
)
@pytest.mark.parametrize(
    "fault", [each if each == "full" else pytest.param(each, marks=pytest.mark.slow) for each in FAULTS]
)
def test_the_service_works_whatever_becomes_of_its_log(
    tmp_path: Path,
    environment: dict[str, str],
    mail_server: MailServer,
    fault: str,
    arguments: tuple[str, ...],
) -> None:
    """From the start to the end; more lines are written than any pipe holds."""
    with (
        FAULTS[fault]() as options,
        gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "1"}, *arguments, **options) as service,
    ):
        ask_often(service)
        goes_through(service, mail_server, "ada@example.com")
        assert service.stop() == 0


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"unread"}))  # an unread pipe takes 9,000 lines first
def test_dropped_lines_are_counted(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer, fault: str
) -> None:
    """For the alert; the log itself cannot tell."""
    with (
        FAULTS[fault]() as options,
        gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "1"}, **options) as service,
    ):
        wait_until(lambda: scraped(service)[DROPPED] > 0, 30, "lines are dropped")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_setting_ends_the_start_although_nobody_can_be_told(
    tmp_path: Path, environment: dict[str, str], fault: str
) -> None:
    """With its own status, and not in an endless loop of workers."""
    wrong = environment | {"WEB_CONCURRENCY": "1", "NUMBER_DIGITS": "3"}
    with FAULTS[fault]() as options, gunicorn(tmp_path, wrong, ready=False, **options) as service:
        assert service.process.wait(30) == 3


def test_bad_requests_do_not_block_a_worker_whose_log_is_not_read(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """gunicorn's own warnings go the same way: clients can cause them as often as they like."""
    with (
        FAULTS["unread"]() as options,
        gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "1"}, **options) as service,
    ):
        for _ in range(1000):
            answer = requests.get(service.url, headers={"Content-Length": "-1"}, timeout=20)
            assert answer.status_code == 400
        goes_through(service, mail_server, "ada@example.com")


def test_a_worker_that_dies_is_replaced_although_the_log_is_not_read(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """gunicorn's master tells of it, and must not wait for a reader."""
    with (
        FAULTS["unread"]() as options,
        gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "1"}, **options) as service,
    ):
        ask_often(service)
        for _ in range(3):
            before = set(service.workers())
            service.kill_workers()
            wait_until(lambda: service.workers() and not before & set(service.workers()), 20)  # noqa: B023
        wait_until(service.answers_again, 30, "it answers again")
        goes_through(service, mail_server, "ada@example.com")
        assert service.stop() == 0


def test_mails_go_out_after_the_log_was_full_while_the_mail_server_was_away(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """No relay and no sender dies of a line that it cannot write; the log goes on when there is room."""
    with gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "2"}) as service:
        mail_server.stop()
        with file_that_is_full(service):
            for turn in range(20):
                assert service.register(f"ada{turn}@example.com").status_code == 202
            wait_until(lambda: scraped(service)[DROPPED] > 0, 30, "lines are dropped")
        mail_server.start()
        for turn in range(20):
            mail_server.box.wait_for(f"ada{turn}@example.com", timeout_s=60)
        goes_through(service, mail_server, "eve@example.com")
        wait_until(lambda: "log_lines_dropped" in service.log, 30, "the log tells of the gap")
        for line in service.log.splitlines():
            if "log_lines_dropped" in line:
                assert json.loads(line)["count"] > 0


def test_every_line_is_whole_however_many_workers_write(
    tmp_path: Path, environment: dict[str, str], mail_server: MailServer
) -> None:
    """Two workers, one file: nothing is interleaved, and at the end nothing is missing."""
    with gunicorn(tmp_path, environment | {"WEB_CONCURRENCY": "2"}) as service:
        for turn in range(400):
            requests.get(f"{service.url}/healthz", headers={"X-Request-ID": f"turn-{turn}"}, timeout=20)
        assert service.stop() == 0
        lines = [json.loads(line) for line in service.log.splitlines() if line.startswith("{")]
    found = {line.get("request_id") for line in lines}
    assert {f"turn-{turn}" for turn in range(400)} <= found
