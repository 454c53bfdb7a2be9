"""`python -m dev.run` on ports of its own, watched and ended like a person's."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

from tests.support.servers import ROOT, free_port
from tests.support.waiting import wait_until

READY_WITHIN_S = 30
END_WITHIN_S = 20


class Run:
    """One `python -m dev.run` on ports of its own, with its output in a file."""

    def __init__(self, instance: Path, log: Path, **environment: str) -> None:
        self.instance, self._log = instance, log
        self.ports = {name: free_port() for name in ("PORT", "SMTP_PORT", "MAILBOX_PORT")}
        own = {name: str(port) for name, port in self.ports.items()} | {"WEB_CONCURRENCY": "1"}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dev.run", "--instance", str(instance)],
                cwd=ROOT,
                env={**os.environ, **own, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until_ready(self) -> None:
        """Until the printed lines say that all of it runs."""
        wait_until(lambda: "Ctrl-C" in self.output or self.process.poll() is not None, READY_WITHIN_S)
        assert self.process.poll() is None, self.output

    def children(self) -> dict[str, int]:
        """The pid of each program that it started, by a word of its command line."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in pids}
        words = ("valkey-server", "dev.mailbox", "gunicorn")
        return {word: pid for word in words for pid, command in commands.items() if word in command}

    def processes(self) -> list[int]:
        """The pids of every process in the process groups of its programs: workers too."""
        groups = set(self.children().values())
        return [pid for pid in all_processes() if group_of(pid) in groups]

    def valkey_port(self) -> int:
        found = re.search(r"Valkey on port (\d+)", self.output)
        assert found is not None
        return int(found[1])

    def curl_lines(self) -> list[list[str]]:
        """The words of each printed command."""
        printed = self.output.replace("\\\n", " ")
        return [shlex.split(line) for line in re.findall(r"curl .*", printed)]

    def mailbox(self, path: str) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.ports['MAILBOX_PORT']}{path}", timeout=10)

    def mails(self) -> list[dict[str, Any]]:
        """What arrived, newest first."""
        found: list[dict[str, Any]] = self.mailbox("/messages.json").json()
        return found

    def end(self, by: signal.Signals = signal.SIGINT) -> int:
        """Send the signal to it alone and wait; returns the exit status."""
        self.process.send_signal(by)
        return self.process.wait(END_WITHIN_S)

    def clean_up(self) -> None:
        """End it however a test left it."""
        if self.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self.end(signal.SIGTERM)
            self.process.kill()
            self.process.wait()


def all_processes() -> list[int]:
    """Every process of the machine."""
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def status_of(pid: int) -> list[str]:
    """State, parent, process group … of a process (proc_pid_stat(5)); empty when there is none."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return []


def group_of(pid: int) -> int | None:
    status = status_of(pid)
    return int(status[2]) if status else None


@contextmanager
def running(instance: Path, log: Path, **environment: str) -> Iterator[Run]:
    """A run that is ready, and ended afterwards."""
    started = Run(instance, log, **environment)
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.clean_up()
