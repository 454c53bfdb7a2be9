"""A storm: clients of three services, killed workers, a mail server that goes down and comes back slow,
Valkey restarted, and a service that is taken out of SERVICES_FILE for a while.

    python -m tests.delivery.storm --seconds 300

Then calm, and the promises are checked: whatever happened, the last mail of every address from every service
carries the number that is live there, and nothing is owed, lost or left behind.
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
from typing import Any, NamedTuple

import redis
import requests

from app.domain.registration import mail_id
from app.repositories.keys import Field
from tests.api.conftest import bearer
from tests.support.records import Records
from tests.support.reloading import reload, wait_for_workers
from tests.support.scan import contradictions, kinds
from tests.support.servers import Gunicorn, Received, Valkey
from tests.support.smtp import Conversation, ScriptedSmtp
from tests.support.tenants import key_of, services_file
from tests.support.values import text, there
from tests.support.waiting import wait_until

CLIENTS = 32
ADDRESSES = 300
ERASED_TOO = 50
"""Of the addresses, so many are erased now and then."""

CONNECTIONS = 8
WORKERS = 2
WAITS_WITHIN_S = 30
"""From the mail server's return to a sweep's second round, on a busy machine."""

NOBODY = "/api/users/" + "a" * 26
SETTLED_WITHIN_S = 0.5
"""From the server's 250 to the settling, on a busy machine, while Valkey answers."""

MAILS, KILLS = 300, 3
"""So much must happen: a storm lasts longer where the machine is busy."""

CALM_WITHIN_S = 120


SERVICES = ("shop", "bank", "rehearsal")
LEAVES = "bank"
"""Is taken out of the file and put back."""

REHEARSES = "rehearsal"
"""Is a test service: nothing that it registers is ever mailed."""


class Who(NamedTuple):
    """One address at one service."""

    service: str
    number: int

    @property
    def address(self) -> str:
        """The same for all services."""
        return f"storm{self.number}@example.com"

    @property
    def path(self) -> str:
        return f"/api/users/{Records.id_of(self.address, self.service)}"


EVERYBODY = [Who(service, number) for service in SERVICES for number in range(ADDRESSES)]


@dataclass
class Report:
    """What happened, and what was not as promised. `answers`, `mails`: by service. `waited`: mails that were
    seen to wait for their service."""

    answers: dict[str, Counter[str]] = field(default_factory=lambda: {each: Counter() for each in SERVICES})
    mails: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    absences: int = 0
    waited: int = 0
    in_flight: int = 0
    repeats: int = 0
    calm_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        of_each = [
            f"{service}: {self.mails[service]} mails; {dict(sorted(self.answers[service].items()))}"
            for service in SERVICES
        ]
        rest = (
            f"{self.kills} kills, {self.absences} absences of {LEAVES}, {self.waited} mails waited for it, "
            f"{self.in_flight} sends in flight, {self.repeats} repeats, calm after {self.calm_s:.1f} s"
        )
        return "\n".join([*of_each, rest, *(self.problems or ["no problems"])])


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
        self.acknowledged: set[Who] = set()
        self.valkey = Valkey(folder, appendonly="yes", appendfsync="always", save="")
        self.smtp = UnevenSmtp()
        self._folder = folder
        self._may_stay = {"user", "number", "keycheck", "ready", "relay", "sender"}
        self._write_services(*SERVICES)
        self.service = Gunicorn(
            folder,
            {
                "REDIS_URL": self.valkey.url,
                "SERVICES_FILE": str(folder / "services.toml"),
                "MAIL_SERVER": "127.0.0.1",
                "MAIL_PORT": str(self.smtp.port),
                "MAIL_TIMEOUT": str(mail_timeout_s),
                "MAIL_CONNECTIONS": str(CONNECTIONS),
                "ADDRESS_LIMIT": "",
                "MAILBOX_LIMIT": "",
                "VERIFY_LIMIT": "",
                "WEB_CONCURRENCY": str(WORKERS),
            },
        )
        self._over = threading.Event()
        self._workers_live = threading.Lock()  # gunicorn loses the signal to a worker that is still starting
        self._away = threading.Event()

    def _write_services(self, *names: str) -> None:
        tables = {name: self._table(name) for name in names}
        with tempfile.TemporaryDirectory(dir=self._folder) as draft:
            services_file(Path(draft), **tables).replace(self._folder / "services.toml")

    def _table(self, name: str) -> dict[str, Any]:
        """What the file says of a service."""
        return {"sender": sender(name), "test": name == REHEARSES}

    def _works(self) -> list[Callable[[], None]]:
        """What goes on beside the clients until the storm is over."""
        return [self._killer, self._mail_weather]

    def run(self) -> Report:
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)]
        threads += [threading.Thread(target=work) for work in self._works()]
        for thread in threads:
            thread.start()
        for _ in range(2):
            self._over.wait(self.seconds / 3)
            self._restart_valkey()
        self._over.wait(self.seconds / 3)
        with contextlib.suppress(AssertionError):  # the report tells
            wait_until(self._enough, 60)
        self._over.set()
        for thread in threads:
            thread.join()
        self._calm()
        self._check()
        return self.report

    def _enough(self) -> bool:
        report = self.report
        return len(self.smtp.mails) > MAILS and report.kills >= KILLS and report.absences > 0

    def close(self) -> None:
        self.service.kill()
        self.smtp.close()
        self.valkey.stop()

    # The storm

    def _client(self, number: int) -> None:
        chance = random.Random(number)
        http = requests.Session()
        while not self._over.is_set():
            who = chance.choice(EVERYBODY)
            answers = self.report.answers[who.service]
            away = self._away.is_set()
            try:
                answer = self._ask(http, who, chance, f"{who.service}'s {number}")
            except requests.RequestException:
                answers["no answer"] += 1
                self._over.wait(0.05)
                continue
            name = "resend" if answer.url.endswith("/resend") else str(answer.request.method)
            answers[f"{name} {answer.status_code}"] += 1
            if answer.status_code == 401 and not (who.service == LEAVES and (away or self._away.is_set())):
                self.report.problems.append(f"the key of {who.service} was refused")
        http.close()

    def _ask(self, http: requests.Session, who: Who, chance: random.Random, token: str) -> requests.Response:
        """Registers mostly; mails again, erases some."""
        headers = bearer(key_of(who.service))
        if chance.random() < 0.2:
            headers["Prefer"] = "respond-async"
        act = chance.random()
        if act < 0.2 and who.number < ERASED_TOO:
            return http.delete(self.service.url + who.path, headers=headers, timeout=30)
        if act > 0.8:
            return http.post(f"{self.service.url}{who.path}/resend", headers=headers, timeout=30)
        body = {"email": who.address, "token": token}
        answer = http.post(f"{self.service.url}/api/users", json=body, headers=headers, timeout=30)
        if answer.status_code in (201, 202):
            self.acknowledged.add(who)
        return answer

    def _killer(self) -> None:
        while not self._over.wait(random.uniform(1.5, 4)):
            with self._workers_live:
                if workers := self.service.workers():
                    self.report.in_flight += self.smtp.in_hand()
                    self.report.kills += 1
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(random.choice(workers), signal.SIGKILL)

    def _mail_weather(self) -> None:
        try:
            self._change_weather()
        except AssertionError as error:
            self.report.problems.append(f"the weather stopped: {error}")

    def _change_weather(self) -> None:
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
        """The mail server goes down; while mails wait, a service leaves. It comes back after the server."""
        self.report.in_flight += self.smtp.in_hand()
        self.smtp.stop()
        self._over.wait(min(self.seconds / 12, 10))
        self._away.set()
        self._put_in_force(*(each for each in SERVICES if each != LEAVES))
        self.smtp.start()
        self._over.wait(min(self.seconds / 12, 10))
        self._count_waiting()
        self._put_in_force(*SERVICES)
        self._away.clear()
        self.report.absences += 1

    def _put_in_force(self, *names: str) -> None:
        """Writes the file and reloads, until no worker is left that has the old one."""
        with self._workers_live:
            wait_for_workers(self.service, WORKERS)
            self.report.in_flight += self.smtp.in_hand()
            self._write_services(*names)
            reload(self.service, WORKERS)
        status = 404 if LEAVES in names else 401
        headers = bearer(key_of(LEAVES))
        for _ in range(8 * WORKERS):
            with contextlib.suppress(requests.RequestException):  # Valkey may be away just now
                answer = requests.get(f"{self.service.url}{NOBODY}", headers=headers, timeout=20)
                if answer.status_code not in (status, 503):
                    self.report.problems.append(f"{answer.status_code} for the key of {LEAVES}, not {status}")

    def _count_waiting(self) -> None:
        """Waits until mails of the service that is away were tried, and counts them."""
        with contextlib.suppress(AssertionError):  # the report tells
            self.report.waited += wait_until(self._waiting, WAITS_WITHIN_S)

    def _waiting(self) -> int:
        with contextlib.suppress(redis.RedisError), contextlib.closing(self.valkey.client()) as client:
            keys = [Records(client, service=LEAVES).keys(each.address).user for each in EVERYBODY[:ADDRESSES]]
            errors = [client.hget(key, Field.ERROR) for key in keys]
            return errors.count(b"service not configured")
        return 0

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
        mails = list(self.smtp.mails)
        last = {(mail.sender, mail.recipient): mail for mail in mails}
        for who in EVERYBODY:
            mail = last.get((sender(who.service), who.address))
            self.report.problems += [f"{problem}: {who}" for problem in self._wrong(who, client, mail)]
        self._check_repeats(mails)
        self.report.problems += contradictions(client)
        left = set(kinds(client)) - self._may_stay
        self.report.problems += [f"orphan: {kind}" for kind in left]
        client.close()

    def _wrong(self, who: Who, client: redis.Redis, mail: Received | None) -> Iterator[str]:
        """What is not as promised. `mail`: the last one in the name of the service."""
        records = Records(client, service=who.service)
        found = client.hmget(
            records.keys(who.address).user, Field.REGISTRATION, Field.DELIVERY, Field.RESENDS
        )
        registration, delivery, resends = map(text, found)
        if not registration:
            if who in self.acknowledged and who.number >= ERASED_TOO:
                yield "acknowledged and lost"
            return
        stored = there(records.of(who.address))
        if not stored.token.startswith(f"{who.service}'s "):
            yield "another service's token"
        if delivery != "sent":
            yield f"is {delivery}"
        if who.service == REHEARSES:
            return
        if mail is None:
            yield "never mailed"
        elif mail.message_id != f"<{mail_id(registration, int(resends or 0))}@{who.service}.example>":
            yield "the last mail is not the last that was asked for"
        elif mail.number != stored.number:
            yield "the mail has not the number of its registration"
        elif mail.message["From"] != f"{who.service.title()} <{sender(who.service)}>":
            yield "not in the name of its service"

    def _check_repeats(self, mails: list[Received]) -> None:
        senders = {sender(service): service for service in SERVICES}
        self.report.mails.update(senders.get(mail.sender, "nobody") for mail in mails)
        for service in ("nobody", REHEARSES):
            if self.report.mails[service]:
                self.report.problems.append(f"{self.report.mails[service]} mails of {service}")
        self.report.repeats = len(mails) - len({mail.message_id for mail in mails})
        if self.report.repeats > self.report.in_flight:
            self.report.problems.append(
                f"{self.report.repeats} repeats, but only {self.report.in_flight} sends were in flight"
            )


def sender(service: str) -> str:
    return f"no-reply@{service}.example"


@contextlib.contextmanager
def storm(
    folder: Path, seconds: float, mail_timeout_s: float = 2.0, kind: type[Storm] = Storm
) -> Iterator[Storm]:
    weather = kind(folder, seconds, mail_timeout_s)
    try:
        yield weather
    finally:
        weather.close()


def main(kind: type[Storm] = Storm, description: str | None = __doc__) -> int:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument(
        "--mail-timeout", type=float, default=2.0, help="seconds; the lease is twice that plus 5"
    )
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        storm(Path(folder), chosen.seconds, chosen.mail_timeout, kind) as weather,
    ):
        report = weather.run()
        print(report)  # noqa: T201
        return len(report.problems)


if __name__ == "__main__":
    sys.exit(main())
