"""A receiver of events: an HTTP server that keeps what it gets and answers as it is told.

receiver = Receiver()
services_file(folder, shop=receiver.table("shop"))     # http://127.0.0.1:port/shop
receiver.says("shop", Reply(500), then=TAKEN)          # the next answer, and all later ones

Each request is verified with the reference library of Standard Webhooks while it is fresh.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from standardwebhooks import Webhook

from tests.support.servers import ROOT, free_port, stopping
from tests.support.waiting import wait_until

PREFIX = "registration."
LONG_S = 3600


@dataclass(frozen=True)
class Reply:
    """One answer. `status`: 0 closes the connection without an answer. `after_s`: silence before it.
    `drip_s`: silence before each of its bytes; it comes too late."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    after_s: float = 0.0
    drip_s: float = 0.0

    @property
    def head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines += [] if self.status == HTTPStatus.NO_CONTENT else ["Content-Length: 0"]
        return "\r\n".join([*lines, "", ""]).encode()


TAKEN = Reply()
HANGS = Reply(0, after_s=LONG_S)
DRIPS = Reply(drip_s=1)


class Receipt(NamedTuple):
    """One request. `headers`: by their names in lower case. `at`: Unix s. `status`: what it is answered.
    `fault`: why its receiver does not believe it; empty where each of the service's secrets verifies it."""

    method: str
    path: str
    headers: dict[str, str]
    body: str
    at: float
    status: int
    fault: str

    @property
    def is_taken(self) -> bool:
        return 200 <= self.status < 300

    @property
    def service(self) -> str:
        return self.path.removeprefix("/")

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def kind(self) -> str:
        """`sent`, `verified` …"""
        return str(self.event["type"]).removeprefix(PREFIX)

    @property
    def user_id(self) -> str:
        return str(self.event["data"]["id"])

    @property
    def created_at(self) -> str:
        return str(self.event["data"]["created_at"])


def secrets_of(service: str, count: int = 1) -> list[str]:
    """The same in every process."""
    digests = [hashlib.sha256(f"{place} of {service}".encode()).digest() for place in range(count)]
    return [f"whsec_{base64.b64encode(digest).decode()}" for digest in digests]


def fault_of(body: bytes, headers: dict[str, str], secrets: Sequence[str]) -> str:
    """What the reference library finds wrong with a request, by each of these secrets."""
    if not secrets:
        return "nobody is told events here"
    for secret in secrets:
        try:
            Webhook(secret).verify(body, headers)
        except Exception as error:  # noqa: BLE001 - also what it stumbles over
            return f"{type(error).__name__}: {error}"
    return ""


def first_receipts(receipts: Sequence[Receipt]) -> list[Receipt]:
    """Each event that was taken, once."""
    found: dict[str, Receipt] = {}
    for receipt in receipts:
        if receipt.is_taken:
            found.setdefault(receipt.event_id, receipt)
    return list(found.values())


class Receiver:
    """The server, in threads of this process. `secrets`: of each service that it receives for.

    `keep`: is told each request before that is answered. `choose`: the answers that `says` does not give.
    """

    def __init__(
        self,
        port: int | None = None,
        *services: str,
        keep: Callable[[Receipt], None] | None = None,
        choose: Callable[[], Reply] = lambda: TAKEN,
    ) -> None:
        self.receipts: list[Receipt] = []
        self.secrets = {service: secrets_of(service) for service in services}
        self.closed = threading.Event()
        self._keep = keep or self.receipts.append
        self._choose = choose
        self._replies: dict[str, deque[Reply]] = defaultdict(deque)
        self._then: dict[str, Reply] = {}
        self._lock = threading.Lock()
        self.port = port or free_port()
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.receiver = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.port}/{service}"

    def table(self, service: str, secrets: int = 1, **more: Any) -> dict[str, Any]:
        """What its table in SERVICES_FILE says, so that its events come here."""
        self.secrets[service] = secrets_of(service, secrets)
        return {"events_url": self.url(service), "events_secrets": self.secrets[service], **more}

    def says(self, service: str, *replies: Reply, then: Reply = TAKEN) -> None:
        """The next answers to a service, and the one to all that comes later."""
        with self._lock:
            self._replies[service] = deque(replies)
            self._then[service] = then

    def attempts(self, service: str = "", *, user_id: str = "") -> list[Receipt]:
        """All requests, of one service or about one user."""
        found = [each for each in list(self.receipts) if not service or each.service == service]
        return [each for each in found if not user_id or (each.body and each.user_id == user_id)]

    def taken(self, service: str = "", *, user_id: str = "") -> list[Receipt]:
        """The events that were taken, in this order; repeats are left out."""
        return first_receipts(self.attempts(service, user_id=user_id))

    def wait_for(self, user_id: str, *kinds: str, timeout_s: float = 10.0) -> list[Receipt]:
        """Waits for as many events about a user; they must be these, in this order."""
        with contextlib.suppress(AssertionError):  # what there is says more
            wait_until(lambda: len(self.taken(user_id=user_id)) >= len(kinds), timeout_s)
        found = self.taken(user_id=user_id)
        told = [receipt.kind for receipt in found]
        assert told == [*kinds], f"{told}, not {[*kinds]}"
        return found

    @property
    def faults(self) -> list[str]:
        """What is wrong with the requests so far."""
        return [f"{each.path}: {each.fault}" for each in list(self.receipts) if each.fault]

    def stop(self) -> None:
        """Ends also the answers that hang."""
        self.closed.set()
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    def receive(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        """Keeps a request, and says what to answer."""
        service = path.removeprefix("/")
        with self._lock:
            replies = self._replies[service]
            reply = replies.popleft() if replies else self._then.get(service) or self._choose()
            fault = fault_of(body, headers, self.secrets.get(service, ()))
            text = body.decode(errors="replace")
            status = 0 if reply.drip_s else reply.status
            self._keep(Receipt(method, path, headers, text, time.time(), status, fault))
        return reply


class _Server(http.server.ThreadingHTTPServer):
    receiver: Receiver
    request_queue_size = 1024
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no error here."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"  # connections may be kept
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # whoever sent it has died
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._answer(self.server.receiver.receive(self.command, self.path, headers, body))

    def do_GET(self) -> None:
        """What follows a redirect may come so."""
        self.do_POST()

    def _answer(self, reply: Reply) -> None:
        closed = self.server.receiver.closed
        if closed.wait(reply.after_s) or not reply.status:
            self.close_connection = True
            return
        for part in self._parts(reply):
            if closed.wait(reply.drip_s):
                return
            self.wfile.write(part)

    def _parts(self, reply: Reply) -> Iterator[bytes]:
        if not reply.drip_s:
            yield reply.head
            return
        for byte in reply.head:
            yield bytes([byte])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nobody reads it."""


class ReceiverProcess:
    """A receiver for some services as a process that can be killed and started again on its port.

    What it wrote of a request before it answered is in the file, however the process ended.
    """

    def __init__(self, folder: Path, *services: str) -> None:
        self.port = free_port()
        self._file = folder / "receipts"
        self._services = services
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def table(self, service: str) -> dict[str, Any]:
        """As `Receiver.table`."""
        url = f"http://127.0.0.1:{self.port}/{service}"
        return {"events_url": url, "events_secrets": secrets_of(service)}

    def start(self) -> None:
        program = [sys.executable, "-m", "tests.support.programs.receiver"]
        self._process = subprocess.Popen(
            [*program, str(self.port), str(self._file), *self._services], cwd=ROOT
        )

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self.kill()

    def receipts(self) -> list[Receipt]:
        """All requests so far, in the order of their arrival. One whose line was cut had no answer."""
        found = []
        for line in self._file.read_text().splitlines() if self._file.exists() else ():
            with contextlib.suppress(ValueError):
                found.append(Receipt(**json.loads(line)))
        return found


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that ends with the block, and whose requests were all genuine."""
    with stopping(Receiver()) as receiver:
        yield receiver
    assert receiver.faults == []
