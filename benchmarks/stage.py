"""The servers of a run, each a process of its own: Valkey, a mail sink, the service, the yardstick."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import redis

from tests.support.servers import ROOT, Gunicorn, Valkey, free_port
from tests.support.waiting import wait_until

NEEDED = ("wrk", "smtp-sink")
SECRET = "benchmarks benchmarks benchmarks benchmarks"


def missing() -> list[str]:
    """The programs that a run needs and this machine lacks (Debian's packages wrk and postfix)."""
    return [program for program in NEEDED if shutil.which(program) is None]


class Sink:
    """An SMTP server that accepts every mail and counts. `delay_ms`: before its final reply.

    Without a delay it is postfix's smtp-sink, which takes ten times as many mails as the service sends.
    """

    def __init__(self, folder: Path, delay_ms: int = 0) -> None:
        self.port = free_port()
        self._told = folder / f"sink-{self.port}.txt"
        self._command = (
            [sys.executable, "-m", "benchmarks.slow_sink", str(self.port), str(delay_ms)]
            if delay_ms
            else ["smtp-sink", *_user(), "-c", f"127.0.0.1:{self.port}", "4096"]
        )
        self.start()

    def start(self) -> None:
        """Starts it, also again after `stop`; the count begins anew."""
        with self._told.open("wb") as told:
            self.process = subprocess.Popen(self._command, cwd=ROOT, stdout=told, stderr=subprocess.STDOUT)

    @property
    def mails(self) -> int:
        """How many it has accepted so far."""
        with self._told.open("rb") as told:
            told.seek(max(0, told.seek(0, os.SEEK_END) - 200))
            counts = [word for word in told.read().decode().split() if word.startswith("mesg=")]
        return int(counts[-1].removeprefix("mesg=").partition("sess")[0]) if counts else 0

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def _user() -> list[str]:
    return ["-u", "nobody"] if os.geteuid() == 0 else []


class Floor:
    """`benchmarks.floor` in as many processes as there are cores."""

    def __init__(self, redis_port: int, smtp_port: int) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "benchmarks.floor", *map(str, (self.port, redis_port, smtp_port))]
        self.process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        wait_until(lambda: _listens(self.port), 20, "the floor listens")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> list[int]:
        """The pids of its processes."""
        pid = self.process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Stage:
    """One Valkey, one sink, and services that differ in their settings."""

    def __init__(self, folder: Path, delay_ms: int = 0) -> None:
        self.folder = folder
        self._ends = contextlib.ExitStack()
        self.valkey = Valkey(Path(tempfile.mkdtemp(prefix="valkey-", dir=folder)), save="")
        self._ends.callback(self.valkey.stop)
        self.sink = Sink(folder, delay_ms)
        self._ends.callback(self.sink.stop)

    def service(self, *arguments: str, application: str = "wsgi:app", **settings: str) -> Gunicorn:
        """The service under its own gunicorn configuration; other options and settings on request."""
        environment = {
            "REDIS_URL": self.valkey.url,
            "MAIL_SERVER": "127.0.0.1",
            "MAIL_PORT": str(self.sink.port),
            "SECRET_KEY": SECRET,
            "WEB_CONCURRENCY": str(os.cpu_count() or 1),
            **settings,
        }
        service = Gunicorn(
            self.folder, environment, *arguments, application=application, ready=application == "wsgi:app"
        )
        self._ends.callback(service.kill)
        wait_until(lambda: len(service.workers()) >= (os.cpu_count() or 1), 20, "workers")
        return service

    def floor(self) -> Floor:
        """The same wire traffic without the service's thinking."""
        floor = Floor(self.valkey.port, self.sink.port)
        self._ends.callback(floor.stop)
        return floor

    def bare(self, *arguments: str) -> Gunicorn:
        """The yardstick under the same gunicorn configuration, with other options on request."""
        service = self.service(*arguments, application="benchmarks.bare:app")
        wait_until(lambda: _listens(service.port), 20, "the yardstick listens")
        return service

    @property
    def store(self) -> redis.Redis:
        return self.valkey.client()

    def settle(self, timeout_s: float = 300) -> None:
        """Waits until every mail is out."""
        store = self.store
        wait_until(lambda: not any(True for _ in store.scan_iter("*:outbox", count=5000)), timeout_s, "mails")

    def stop(self) -> None:
        """Ends everything, in the opposite order."""
        self._ends.close()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def stage(folder: Path, delay_ms: int = 0) -> Iterator[Stage]:
    folder.mkdir(parents=True, exist_ok=True)
    made = Stage(folder, delay_ms)
    try:
        yield made
    finally:
        made.stop()
