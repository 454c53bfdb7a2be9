"""Clients that register and hand numbers in while servers die, and know what each of them may be told."""

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.support.records import Records
from tests.support.servers import Gunicorn, MailServer, Received, gunicorn

CLIENTS = 16
LONGEST_S = 3.0
"""Whatever happens to Redis, every answer comes within this: REDIS_TIMEOUT is 2 s."""

NOTHING = None


class Newest:
    """Keeps the newest number of each address."""

    def __init__(self) -> None:
        self.numbers: dict[str, str] = {}

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        recipient = envelope.rcpt_tos[0]
        self.numbers[recipient] = Received("", recipient, envelope.content).number
        return "250 2.0.0 Taken"


@dataclass(frozen=True)
class Answered:
    """One answer: of which address, when it was asked for (monotonic), after how long, and what."""

    email: str
    asked: float
    took: float
    status: int


@dataclass
class Client:
    """Has addresses of its own and does one thing after the other, so that it knows what each may hold.

    `may_hold`: of each address, the tokens of which one must be stored now; NOTHING among them where it may
    be none. An answer of 503 leaves both what was there and what was asked for. `mailed`: addresses whose
    live number is the last that was mailed. `wrong`: what must never be; `lost`: what must not be unless
    a master took writes into its grave.
    """

    service: Gunicorn
    mails: Newest
    addresses: list[str]
    random: random.Random
    may_hold: dict[str, set[str | None]] = field(default_factory=dict)
    mailed: set[str] = field(default_factory=set)
    handed_out: list[str] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def work(self, stop: threading.Event) -> None:
        names = itertools.count()
        while not stop.is_set():
            email = self.random.choice(self.addresses)
            held = self.may_hold.get(email, {NOTHING})
            try:
                if NOTHING not in held and email in self.mails.numbers:
                    self.hand_in(email, held)
                else:
                    self.register(email, held, f"{email} {next(names)}")
            except requests.RequestException as error:
                self.wrong.append(f"no answer: {type(error).__name__}")

    def register(self, email: str, held: set[str | None], token: str) -> None:
        self.mails.numbers.pop(email, None)
        self.mailed.discard(email)
        status = self.ask(email, "/api/users", {"email": email, "token": token}).status_code
        if status in (201, 202):
            self.may_hold[email] = {token}
        elif status == 503:
            self.may_hold[email] = {*held, token}
        else:
            self.wrong.append(f"registering: {status}")
        if status == 201:
            self.mailed.add(email)

    def hand_in(self, email: str, held: set[str | None]) -> None:
        body = {"email": email, "number": self.mails.numbers.pop(email)}
        answer = self.ask(email, "/api/users/verify", body)
        if answer.status_code == 200:
            token = answer.json()["token"]
            if token not in held:
                self.lost.append(f"handed out {token} instead of one of {held}")
            self.handed_out.append(token)
            self.may_hold[email] = {NOTHING}
        elif answer.status_code == 503:
            self.may_hold[email] = {*held, NOTHING}
        elif answer.status_code != 403:
            self.wrong.append(f"handing in: {answer.status_code}")
        elif email in self.mailed:
            self.lost.append(f"the number of {held} was refused")

    def ask(self, email: str, path: str, body: dict[str, str]) -> requests.Response:
        asked = time.monotonic()
        answer = self.service.post(path, body)
        self.answers.append(Answered(email, asked, time.monotonic() - asked, answer.status_code))
        return answer


class Load:
    """Sixteen clients at work, until the block ends."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self.clients = clients

    @property
    def answers(self) -> list[Answered]:
        return sorted((a for client in self.clients for a in list(client.answers)), key=lambda a: a.asked)

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)

    def assert_only_503_and_in_time(self) -> None:
        """No other error, and none late."""
        assert [wrong for client in self.clients for wrong in client.wrong] == []
        assert set(self.statuses) <= {200, 201, 202, 403, 503}
        assert max((answer.took for answer in self.answers if answer.status == 503), default=0.0) < LONGEST_S

    def successes(self, since: float) -> int:
        return sum(answer.asked > since and answer.status < 300 for answer in self.answers)

    def refused_since(self, since: float) -> list[float]:
        """How many seconds after that each answer of 503 came."""
        return [a.asked + a.took - since for a in self.answers if a.asked > since and a.status == 503]

    def assert_nothing_lost(self, records: Records) -> None:
        """Every address holds what its client was told, and no token came out twice."""
        assert [lost for client in self.clients for lost in client.lost] == []
        for client in self.clients:
            for email, may in client.may_hold.items():
                found = records.of(email)
                assert (found.token if found else NOTHING) in may, email
            assert len(client.handed_out) == len({*client.handed_out})


@contextmanager
def load(
    folder: Path,
    url: str,
    addresses: Callable[[int], list[str]],
    *,
    verifies: bool = True,
    **environment: Any,
) -> Iterator[Load]:
    """`addresses`: those of each client, by its number."""
    mails = Newest()
    server = MailServer(mails)
    settings = {
        "REDIS_URL": url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(server.port),
        "MAIL_DEFAULT_SENDER": "no-reply@example.com",
        "MAIL_TIMEOUT": "2",
        "ADDRESS_LIMIT": "",
        "MAILBOX_LIMIT": "",
        "VERIFY_LIMIT": "",
        "WEB_CONCURRENCY": "2",
        **environment,
    }
    stop = threading.Event()
    try:
        with gunicorn(folder, settings) as service:
            clients = [
                Client(service, mails, addresses(number), random.Random(number)) for number in range(CLIENTS)
            ]
            threads = [threading.Thread(target=client.work, args=(stop,)) for client in clients]
            for thread in threads:
                thread.start()
            try:
                yield Load(clients)
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
    finally:
        server.stop()
