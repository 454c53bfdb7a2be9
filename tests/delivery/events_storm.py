"""The storm, seen by the receivers of events: one process for all services, which is killed, too, and started
again on its port, and which now and then does not take what it gets.

    python -m tests.delivery.events_storm --seconds 300

Then calm, and the promises are checked: each change that was acknowledged was told, the events of each
address came in their order, and none names a person.
"""

import contextlib
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import requests

from app.domain.registration import rfc3339
from app.repositories.keys import Field
from tests.api.conftest import bearer
from tests.delivery.storm import ERASED_TOO, EVERYBODY, REHEARSES, SERVICES, Report, Storm, Who, main, sender
from tests.support.inbox import Inbox
from tests.support.receivers import Receipt, ReceiverProcess, first_receipts
from tests.support.records import Records
from tests.support.scan import kinds
from tests.support.tenants import key_of
from tests.support.values import text
from tests.support.waiting import wait_until

BRIEF = "brief"
"""A test service whose numbers end soon. It has addresses of its own, and nothing else ends them."""

BRIEF_TTL_S = 5
BRIEF_EVERY_S = 0.2
TOLD_WITHIN_S = 180
"""From the calm on: an end is told within 60 s, a wait may have grown to a minute, the machine is busy."""

VERIFICATIONS = 0.2
"""How many of the requests hand in a number."""

MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
BODY = re.compile(
    rf'\{{"type":"registration\.(sent|verified|expired)","timestamp":"{MOMENT}",'
    rf'"data":\{{"id":"[a-z2-7]{{26}}","created_at":"{MOMENT}"\}}\}}'
)
"""Nothing else is told here."""

EVENT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
HEADERS = {
    "host",
    "user-agent",
    "accept",
    "accept-encoding",
    "connection",
    "content-type",
    "content-length",
} | {f"webhook-{name}" for name in ("id", "timestamp", "signature")}


class Change(NamedTuple):
    """What an answer, or the record at the end, says of a registration."""

    kind: str
    user_id: str
    created_at: str


@dataclass
class EventsReport(Report):
    """`receiver_kills`; `told`: events by kind; `again`: events that were taken more than once."""

    receiver_kills: int = 0
    told: Counter[str] = field(default_factory=Counter)
    again: int = 0
    told_s: float = 0.0

    def __str__(self) -> str:
        told = (
            f"{self.receiver_kills} kills of the receiver, told {dict(sorted(self.told.items()))}, "
            f"{self.again} more than once, all {self.told_s:.1f} s after the calm"
        )
        return f"{told}\n{super().__str__()}"


class EventsStorm(Storm):
    """Its clients also hand in numbers. Every service is told its events."""

    report: EventsReport

    def __init__(self, folder: Path, seconds: float, mail_timeout_s: float) -> None:
        self._receiver = ReceiverProcess(folder, *SERVICES, BRIEF)
        super().__init__(folder, seconds, mail_timeout_s)
        self.report = EventsReport()
        self._may_stay |= {"event-relay", "receivers", "waiting"}
        self._inbox = Inbox(self.smtp.mails)
        self._turns = count()
        self._created: dict[str, str] = {}
        """By the token: when its registration was created, where that was answered."""
        self._handed_out: set[tuple[str, str]] = set()
        """User id and token of each number that was handed in."""
        self._changes: set[Change] = set()

    def close(self) -> None:
        super().close()
        self._receiver.stop()

    def _table(self, name: str) -> dict[str, Any]:
        table = super()._table(name) | self._receiver.table(name)
        return table | ({"test": True, "number_ttl": BRIEF_TTL_S} if name == BRIEF else {"number_ttl": 0})

    def _write_services(self, *names: str) -> None:
        super()._write_services(*names, BRIEF)

    def _works(self) -> list[Callable[[], None]]:
        return [*super()._works(), self._receiver_killer, self._register_briefly]

    # The storm

    def _receiver_killer(self) -> None:
        while not self._over.wait(random.uniform(2, 6)):
            self._receiver.kill()
            self.report.receiver_kills += 1
            self._over.wait(random.uniform(0, 2))
            self._receiver.start()

    def _register_briefly(self) -> None:
        headers = bearer(key_of(BRIEF))
        with requests.Session() as http:
            while not self._over.wait(BRIEF_EVERY_S):
                body = {"email": f"brief{next(self._turns)}@example.com", "token": "t0ken"}
                with contextlib.suppress(requests.RequestException):
                    answer = http.post(
                        f"{self.service.url}/api/users", json=body, headers=headers, timeout=30
                    )
                    self._note(answer)
                    if answer.status_code in (201, 202):
                        found = answer.json()
                        self._changes.add(Change("expired", found["id"], found["created_at"]))

    def _ask(self, http: requests.Session, who: Who, chance: random.Random, token: str) -> requests.Response:
        """Hands in a number now and then; each registration has a token of its own."""
        if chance.random() < VERIFICATIONS:
            handing_in = Who(who.service, chance.randrange(ERASED_TOO))
            if number := self._number_of(http, handing_in):
                return self._hand_in(http, handing_in, number)
        token = f"{token} {next(self._turns)}"
        answer = super()._ask(http, who, chance, token)
        if answer.status_code in (200, 201, 202):
            self._note(answer)
            if answer.request.method == "POST" and not answer.url.endswith("/resend"):
                self._created[token] = answer.json()["created_at"]
        return answer

    def _note(self, answer: requests.Response) -> None:
        """What it says is so when it is given."""
        if answer.status_code in (200, 201) and answer.json()["delivery"] == "sent":
            found = answer.json()
            self._changes.add(Change("sent", found["id"], found["created_at"]))

    def _number_of(self, http: requests.Session, who: Who) -> str:
        """As the person reads it; empty where there is none."""
        if who.service != REHEARSES:
            mails = self._inbox.mails(who.address, sender(who.service))
            return mails[-1].number if mails else ""
        shown = http.get(
            f"{self.service.url}{who.path}/mail", headers=bearer(key_of(who.service)), timeout=30
        )
        return str(shown.json()["number"]) if shown.ok else ""

    def _hand_in(self, http: requests.Session, who: Who, number: str) -> requests.Response:
        answer = http.post(
            f"{self.service.url}/api/users/verify",
            json={"email": who.address, "number": number},
            headers=bearer(key_of(who.service)),
            timeout=30,
        )
        if answer.ok:
            self._handed_out.add((answer.json()["id"], answer.json()["token"]))
        return answer

    # The calm

    def _calm(self) -> None:
        super()._calm()
        began = time.monotonic()
        with contextlib.closing(self.valkey.client()) as client, contextlib.suppress(AssertionError):
            wait_until(lambda: not {"events", "expiry"} & set(kinds(client)), TOLD_WITHIN_S)
        self.report.told_s = time.monotonic() - began

    def _check(self) -> None:
        super()._check()
        receipts = self._receiver.receipts()
        told = first_receipts(receipts)
        self.report.told.update(receipt.kind for receipt in told)
        self.report.again = sum(receipt.is_taken for receipt in receipts) - len(told)
        self.report.problems += [
            *sorted({f"{each.path}: {problem}" for each in receipts for problem in improper(each)}),
            *self._untold(told),
            *self._overtold(told),
        ]
        of_each = defaultdict(list)
        for receipt in receipts:
            of_each[receipt.user_id].append(receipt)
        for user_id, attempts in of_each.items():
            problems = [*out_of_step(attempts), *out_of_order(first_receipts(attempts))]
            self.report.problems += [f"{problem}: {user_id}" for problem in problems]

    def _untold(self, told: Sequence[Receipt]) -> Iterator[str]:
        """What was acknowledged, or is written down at the end, and never told."""
        verified = {
            Change("verified", user_id, self._created[token])
            for user_id, token in self._handed_out
            if token in self._created
        }
        found = Counter(Change(each.kind, each.user_id, each.created_at) for each in told)
        for change in self._changes | verified | {*self._sent_at_last()}:
            if not found[change]:
                yield f"never told: {change}"
        handed_out = Counter(user_id for user_id, _ in self._handed_out)
        verifications = Counter(each.user_id for each in told if each.kind == "verified")
        for user_id, times in handed_out.items():
            if verifications[user_id] < times:
                yield f"{verifications[user_id]} verifications told of {times}: {user_id}"

    def _sent_at_last(self) -> Iterator[Change]:
        """Of what is registered at the end, each mail was accepted."""
        with contextlib.closing(self.valkey.client()) as client:
            for who in EVERYBODY:
                keys = Records(client, service=who.service).keys(who.address)
                if created_ms := text(client.hget(keys.user, Field.CREATED_MS)):
                    yield Change("sent", keys.user_id, rfc3339(int(created_ms)))

    def _overtold(self, told: Sequence[Receipt]) -> Iterator[str]:
        """What was told to another service, or more often than it happened."""
        users = {who.path.rpartition("/")[2]: who for who in EVERYBODY}
        sent: Counter[Who] = Counter()
        for receipt in told:
            who = users.get(receipt.user_id)
            if receipt.service != (who.service if who else BRIEF):
                yield f"told to {receipt.service}: {who}"
            elif who and receipt.kind == "sent":
                sent[who] += 1
        for who, times in sent.items():
            mails = len(self._inbox.mails(who.address, sender(who.service)))
            if who.service != REHEARSES and times > mails:
                yield f"{times} mails told of {mails}: {who}"
        ends = Counter((each.user_id, each.created_at) for each in told if each.kind != "sent")
        yield from (f"ended {times} times: {end}" for end, times in ends.items() if times > 1)


def improper(receipt: Receipt) -> Iterator[str]:
    """What is wrong with one request by itself: with these shapes there is no room for a person in it."""
    if receipt.fault:
        yield receipt.fault
    if not BODY.fullmatch(receipt.body):
        yield f"body {receipt.body}"
    if not EVENT_ID.fullmatch(receipt.event_id):
        yield f"event id {receipt.event_id}"
    if unknown := set(receipt.headers) - HEADERS:
        yield f"headers {unknown}"


def out_of_step(attempts: Sequence[Receipt]) -> Iterator[str]:
    """Of one user: an event is sent until it is taken, and only then the next one; none comes back.

    One that was taken may be repeated before the next one: whoever sent it did not hear the answer.
    """
    over: set[str] = set()
    now, is_taken = "", True
    for attempt in attempts:
        if attempt.event_id != now and not is_taken:
            yield f"a {attempt.kind} overtook {now}"
        if attempt.event_id != now and attempt.event_id in over:
            yield f"a {attempt.kind} came back"
        over.add(attempt.event_id)
        now, is_taken = attempt.event_id, attempt.is_taken


def out_of_order(told: Sequence[Receipt]) -> Iterator[str]:
    """Of one user: one registration after another; each is sent, once or more, before it ends."""
    created = [receipt.created_at for receipt in told]
    if created != sorted(created):
        yield "registrations mixed up"
    of_each: dict[str, list[str]] = defaultdict(list)
    for receipt in told:
        of_each[receipt.created_at].append(receipt.kind)
    for its in of_each.values():
        if set(its[:-1]) - {"sent"} or its[0] == "verified":
            yield f"told in this order: {its}"


if __name__ == "__main__":
    sys.exit(main(EventsStorm, __doc__))
