"""What callers see of a worker that ends."""

import os
import resource
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.delivery.conftest import smtp
from tests.support.faults.http import RawClient, head
from tests.support.servers import gunicorn
from tests.support.smtp import Gate, ScriptedSmtp
from tests.support.waiting import wait_until

__all__ = ["smtp"]  # a fixture

CALLERS = 250
STOPPED_S = 1.5
"""Longer than the second after which a worker looks whether it should end."""


def test_a_worker_that_ends_answers_whom_the_kernel_gave_to_it(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Their connections are made, but not yet accepted: with SO_REUSEPORT no other worker can do it."""
    request = head("/healthz", method="GET")
    with gunicorn(tmp_path, environment, "--workers", "1") as service, ExitStack() as stack:
        workers = service.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        callers = [stack.enter_context(RawClient(service.port)) for _ in range(CALLERS)]
        for caller in callers:
            caller.send(request)
        threading.Event().wait(STOPPED_S)
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)
        assert [caller.answer()[0] for caller in callers] == [200] * CALLERS


@pytest.mark.parametrize("kind", ["Interrupted", "Quit"])
def test_a_worker_that_is_told_to_end_while_it_starts_ends(
    tmp_path: Path, environment: dict[str, str], kind: str
) -> None:
    """It would serve until gunicorn kills it, with requests and mails in hand."""
    worker = f"tests.support.interrupted.{kind}"
    with gunicorn(tmp_path, environment, "-k", worker, "-w", "1", ready=False) as service:
        wait_until(lambda: "Worker exiting" in service.log, 20, "the worker ends")


def test_a_worker_without_a_file_descriptor_to_spare_finishes_what_it_has_in_hand(
    tmp_path: Path, environment: dict[str, str], smtp: ScriptedSmtp
) -> None:
    """It cannot accept those who wait; the request that waits for its mail is answered."""
    smtp.script["content"] = gate = Gate()
    own = environment | {"MAIL_PORT": str(smtp.port)}
    with gunicorn(tmp_path, own) as service, ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        in_hand = pool.submit(service.register, "ada@example.com")
        gate.wait()
        (pid,) = service.workers()
        os.kill(pid, signal.SIGSTOP)
        callers = [stack.enter_context(RawClient(service.port)) for _ in range(5)]
        files = 1 + max(int(file.name) for file in Path(f"/proc/{pid}/fd").iterdir())
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, files))
        threading.Event().wait(STOPPED_S)
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
        assert callers[-1].ended()
        gate.open()
        assert in_hand.result().status_code == 201


@pytest.mark.slow
def test_a_setting_that_is_wrong_by_now_ends_no_service_before_the_reload(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """A worker that takes another's place reads it: it is tried again until it can start. At a reload no
    worker has started with it, and gunicorn ends."""
    keys = tmp_path / "keys"
    keys.write_text(right := f"shop:{'a' * 64}")
    with gunicorn(tmp_path, environment | {"API_KEYS_FILE": str(keys)}) as service:
        keys.write_text("half-writ")
        service.kill_workers()
        wait_until(lambda: service.log.count("cedula cannot start") == 2, 30, "it was tried again")
        keys.write_text(right)
        wait_until(service.answers_again, 30, "it answers again")
        keys.write_text("half-writ")
        service.process.send_signal(signal.SIGHUP)
        assert service.process.wait(30) == 3
