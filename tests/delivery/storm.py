"""A storm: clients, killed workers, a mail server that goes down and comes back slow, Valkey restarted.

    python -m tests.delivery.storm --seconds 300

Then calm, and the promises are checked: whatever happened, the last mail of every address carries the number
that is live, and nothing is owed, lost or left behind.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import requests

from app.domain.address import Address
from app.domain.service import DEFAULT
from app.repositories.keys import Field, Names
from tests.support.records import Records
from tests.support.scan import contradictions, kinds
from tests.support.servers import Gunicorn, Received, Valkey
from tests.support.smtp import Conversation, ScriptedSmtp
from tests.support.values import text
from tests.support.waiting import wait_until

CLIENTS = 32
ADDRESSES = 300
ERASED_TOO = 50
"""Of the addresses, so many are erased now and then."""

CONNECTIONS = 8
SETTLED_WITHIN_S = 0.5
"""From the server's 250 to the settling, on a busy machine, while Valkey answers."""

MAILS, KILLS = 300, 3
"""So much must happen: a storm lasts longer where the machine is busy."""

CALM_WITHIN_S = 120


@dataclass
class Report:
    """What happened, and what was not as promised."""

    answers: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    in_flight: int = 0
    mails: int = 0
    repeats: int = 0
    calm_s: float = 0.0
    problems: list[str] = field(default_factory=list)


class UnevenSmtp(ScriptedSmtp):
    """Accepts mails at once or late, as `delay()` says, and knows which sends are in hand."""

    def __init__(self) -> None:
        super().__init__()
        self.delay: Callable[[], float] = lambda: 0.0
        self.settling_slow = False
        self._busy_until: dict[Conversation, float] = {}
        self.script.update(mail=self._begin, content=self._end)

    def in_hand(self) -> int:
        """Sends that a cut or a kill right now can lead to a repeat of."""
        now = time.monotonic()
        return sum(1 for each in list(self.open_connections) if self._busy_until.get(each, 0.0) > now)

    async def _begin(self, conversation: Conversation, usual: str) -> str:
        self._busy_until[conversation] = float("inf")
        return usual

    async def _end(self, conversation: Conversation, usual: str) -> str:
        if delay := self.delay():
            await asyncio.sleep(delay)
        if not self.settling_slow:
            self._busy_until[conversation] = time.monotonic() + SETTLED_WITHIN_S
        return usual


class Storm:
    """The weather, and the clients that go out in it."""

    def __init__(self, folder: Path, seconds: float, mail_timeout_s: float) -> None:
        self.seconds = seconds
        self.report = Report()
        self.acknowledged: set[str] = set()
        self.valkey = Valkey(folder, appendonly="yes", appendfsync="always", save="")
        self.smtp = UnevenSmtp()
        self.service = Gunicorn(
            folder,
            {
                "REDIS_URL": self.valkey.url,
                "MAIL_SERVER": "127.0.0.1",
                "MAIL_PORT": str(self.smtp.port),
                "MAIL_TIMEOUT": str(mail_timeout_s),
                "MAIL_CONNECTIONS": str(CONNECTIONS),
                "MAIL_DEFAULT_SENDER": "no-reply@example.com",
                "ADDRESS_LIMIT": "",
                "MAILBOX_LIMIT": "",
                "WEB_CONCURRENCY": "2",
            },
        )
        self._over = threading.Event()

    def run(self) -> Report:
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)]
        threads += [threading.Thread(target=work) for work in (self._killer, self._mail_weather)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            self._over.wait(self.seconds / 3)
            self._restart_valkey()
        self._over.wait(self.seconds / 3)
        with contextlib.suppress(AssertionError):  # the report tells
            wait_until(lambda: len(self.smtp.mails) > MAILS and self.report.kills >= KILLS, 40)
        self._over.set()
        for thread in threads:
            thread.join()
        self._calm()
        self._check()
        return self.report

    def close(self) -> None:
        self.service.kill()
        self.smtp.close()
        self.valkey.stop()

    # The storm

    def _client(self, number: int) -> None:
        chance = random.Random(number)
        http = requests.Session()
        while not self._over.is_set():
            which = chance.randrange(ADDRESSES)
            address = f"storm{which}@example.com"
            headers = {"Prefer": "respond-async"} if chance.random() < 0.2 else {}
            try:
                if which < ERASED_TOO and chance.random() < 0.2:
                    user_id = Names(None).user(DEFAULT, Address.parse(address)).user_id
                    answer = http.delete(f"{self.service.url}/api/users/{user_id}", timeout=30)
                else:
                    body = {"email": address, "token": f"t{number}"}
                    answer = http.post(
                        f"{self.service.url}/api/users", json=body, headers=headers, timeout=30
                    )
                    if answer.status_code in (201, 202):
                        self.acknowledged.add(address)
                self.report.answers[f"{answer.request.method} {answer.status_code}"] += 1
            except requests.RequestException:
                self.report.answers["no answer"] += 1
                self._over.wait(0.05)
        http.close()

    def _killer(self) -> None:
        while not self._over.wait(random.uniform(1.5, 4)):
            if workers := self.service.workers():
                self.report.in_flight += self.smtp.in_hand()
                self.report.kills += 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(random.choice(workers), signal.SIGKILL)

    def _mail_weather(self) -> None:
        def uneven() -> float:
            return random.choice((0.0, 0.0, 3.0))

        weathers: list[Callable[[], float] | None] = [lambda: 0.0, lambda: 0.4, None, uneven]
        for weather in cycle(weathers):
            if self._over.is_set():
                break
            if weather is None:
                self._down()
            else:
                self.smtp.delay = weather
                self._over.wait(self.seconds / 12)
        self.smtp.delay = uneven  # at the end: what comes late must not come last

    def _down(self) -> None:
        self.report.in_flight += self.smtp.in_hand()
        self.smtp.stop()
        self._over.wait(min(self.seconds / 12, 10))
        self.smtp.start()

    def _restart_valkey(self) -> None:
        self.smtp.settling_slow = True
        self.valkey.kill()
        time.sleep(1)
        self.valkey.start()
        time.sleep(SETTLED_WITHIN_S)
        self.smtp.settling_slow = False

    # The calm

    def _calm(self) -> None:
        began = time.monotonic()
        client = self.valkey.client()
        try:
            wait_until(lambda: kinds(client)["outbox"] == 0, CALM_WITHIN_S, "the outbox is empty")
        except AssertionError as error:
            self.report.problems.append(str(error))
        self.report.calm_s = time.monotonic() - began
        self.smtp.delay = lambda: 0.0
        time.sleep(4)  # a mail that nobody owes any more may still be under way
        client.close()

    def _check(self) -> None:
        client = self.valkey.client()
        records = Records(client)
        mails = list(self.smtp.mails)
        last = {mail.recipient: mail for mail in mails}
        for number in range(ADDRESSES):
            address = f"storm{number}@example.com"
            keys = records.keys(address)
            registration, delivery = client.hmget(keys.user, Field.REGISTRATION, Field.DELIVERY)
            if registration is None:
                if address in self.acknowledged and number >= ERASED_TOO:
                    self.report.problems.append(f"acknowledged and lost: {address}")
                continue
            if delivery != b"sent":
                self.report.problems.append(f"{address} is {text(delivery)}")
            if address not in last:
                self.report.problems.append(f"never mailed: {address}")
            elif last[address].message_id != f"<{text(registration)}@example.com>":
                self.report.problems.append(f"the last mail has not the live number: {address}")
            elif last[address].number != records.number_of(address):
                self.report.problems.append(f"the mail has not the number of its registration: {address}")
        self._check_repeats(mails)
        self.report.problems += contradictions(client)
        left = set(kinds(client)) - {"user", "number", "keycheck", "ready", "relay", "sender"}
        self.report.problems += [f"orphan: {kind}" for kind in left]
        client.close()

    def _check_repeats(self, mails: list[Received]) -> None:
        self.report.mails = len(mails)
        self.report.repeats = len(mails) - len({mail.message_id for mail in mails})
        if self.report.repeats > self.report.in_flight:
            self.report.problems.append(
                f"{self.report.repeats} repeats, but only {self.report.in_flight} sends were in flight"
            )


@contextlib.contextmanager
def storm(folder: Path, seconds: float, mail_timeout_s: float = 2.0) -> Iterator[Storm]:
    weather = Storm(folder, seconds, mail_timeout_s)
    try:
        yield weather
    finally:
        weather.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument(
        "--mail-timeout", type=float, default=2.0, help="seconds; the lease is twice that plus 5"
    )
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        storm(Path(folder), chosen.seconds, chosen.mail_timeout) as weather,
    ):
        report = weather.run()
        print(report)  # noqa: T201
        return len(report.problems)


if __name__ == "__main__":
    sys.exit(main())
