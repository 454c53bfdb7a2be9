"""32 clients of two services do as they like with one address; a third service has it, too, and rests."""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
import requests

from tests.api.conftest import Api, named, race, wrong
from tests.support.inbox import Inbox
from tests.support.records import Records
from tests.support.scan import contradictions, kinds
from tests.support.servers import MailServer, Valkey, gunicorn, settings_for
from tests.support.tenants import key_of, services_file
from tests.support.waiting import wait_until

CLIENTS = 32
TOKENS = 60
AT_MOST_S = 300
"""Without a fault, a few seconds are enough."""

SERVICES = ("shop", "bank")
ALLOWED = {
    "register": {201, 202},
    "resend": {200, 202, 404},
    "verify": {200, 403},
    "erase": {204, 404},
    "look up": {200, 404},
    "show": {404},
}
"""What may be answered where no budget is set."""

WEIGHTS = {"register": 0.8, "resend": 0.5, "verify": 20, "erase": 0.2, "look up": 1, "show": 0.2}
"""Few registrations: the next one ends a number, and all of them are of one address."""


@dataclass(frozen=True)
class Handed:
    """A token that was handed out: by whom, for which number, under which Idempotency-Key."""

    token: str
    service: str
    number: str
    key: str


@dataclass
class History:
    """What all clients were told."""

    given: set[str] = field(default_factory=set)
    handed: list[Handed] = field(default_factory=list)
    distinct: set[Handed] = field(default_factory=set)
    again: bool = False
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)

    def hand(self, handed: Handed) -> None:
        """Notes it."""
        self.again = self.again or handed in self.distinct
        self.distinct.add(handed)
        self.handed.append(handed)

    def enough(self, tokens: int) -> bool:
        """So many tokens were handed out, and one of them again."""
        return len(self.distinct) >= tokens and self.again

    def strange(self) -> set[tuple[str, int]]:
        return {(act, status) for act, status in self.answers if status not in ALLOWED[act]}

    def mistakes(self) -> list[str]:
        """Tokens that nobody was to get, or that more than one request got."""
        found = [
            f"by another service: {each}" for each in self.handed if not belongs(each.token, each.service)
        ]
        found += [f"nobody gave it: {each}" for each in self.handed if each.token not in self.given]
        requests_of: dict[str, Counter[Handed]] = defaultdict(Counter)
        for each in self.handed:
            requests_of[each.token][each] += 1
        for same in requests_of.values():
            (first, count), *others = same.items()
            if others or (count > 1 and not first.key):
                found.append(f"handed out again: {same}")
        return found


def belongs(token: str, service: str) -> bool:
    return token.startswith(f"{service} ")


class Client:
    """One of the two services' many."""

    def __init__(self, apis: dict[str, Api], inbox: Inbox, email: str, history: History, seed: int) -> None:
        self.apis, self.inbox, self.email, self.history, self.seed = apis, inbox, email, history, seed
        self.ids = {service: Records.id_of(email, service) for service in apis}
        self.random = random.Random(seed)
        self.last: dict[str, tuple[str, str]] = {}
        self.count = 0

    def work(self, enough: Callable[[], bool]) -> None:
        acts = list(WEIGHTS)
        while not enough():
            self.count += 1
            act = self.random.choices(acts, list(WEIGHTS.values()))[0]
            service = self.random.choice(SERVICES)
            answer = self.act(act, service)
            if answer is not None:
                self.history.answers[act, answer.status_code] += 1

    def act(self, act: str, service: str) -> requests.Response | None:
        api, path = self.apis[service], f"/api/users/{self.ids[service]}"
        if act == "register":
            token = f"{service} {self.seed} {self.count}"
            self.history.given.add(token)  # it may stand, whatever is answered
            return api.register(self.email, token, headers=self.preference())
        if act == "verify":
            return self.verify(service)
        method, more = {"resend": ("POST", "/resend"), "erase": ("DELETE", ""), "show": ("GET", "/mail")}.get(
            act, ("GET", "")
        )
        return api.call(method, path + more, headers=self.preference() if act == "resend" else {})

    def preference(self) -> dict[str, str]:
        return {"Prefer": "respond-async"} if self.random.random() < 0.3 else {}

    def verify(self, service: str) -> requests.Response | None:
        """Numbers of either service, wrong ones, and the last request once more."""
        number, key = self.chosen(service)
        if not number:
            return None
        self.last[service] = number, key
        answer = self.apis[service].verify(self.email, number, headers=named(key) if key else {})
        if answer.status_code == 200:
            self.history.hand(Handed(answer.json()["token"], service, number, key))
        return answer

    def chosen(self, service: str) -> tuple[str, str]:
        if service in self.last and self.random.random() < 0.2:
            return self.last[service]
        key = self.random.choice(["", "", "one", "two"])
        whose = service if self.random.random() < 0.8 else self.random.choice(SERVICES)
        numbers = [mail.number for mail in self.inbox.mails(self.email, sender(whose))[-2:]]
        if not numbers:
            return "", ""
        number = numbers[-1] if self.random.random() < 0.8 else numbers[0]
        return (wrong(number) if self.random.random() < 0.1 else number), key


def sender(service: str) -> str:
    return f"no-reply@{service}.example"


@pytest.fixture
def serving(
    valkey_server: Valkey, store: redis.Redis, mail: MailServer, tmp_path: Path
) -> Callable[..., Iterator[dict[str, Api]]]:
    """Starts two workers with three services: `limits` of each of them, and `MAILBOX_LIMIT`."""

    def start(mailbox_limit: str = "", **limits: str) -> Iterator[dict[str, Api]]:
        none = {"address_limit": "", "verify_limit": ""}
        tables = {name: {"sender": sender(name), **none, **limits} for name in (*SERVICES, "club")}
        more = {
            "SERVICES_FILE": str(services_file(tmp_path, **tables)),
            "MAILBOX_LIMIT": mailbox_limit,
            "WEB_CONCURRENCY": "2",
        }
        with gunicorn(tmp_path, settings_for(valkey_server, mail) | more) as server:
            yield {name: Api(server, mail, key_of(name)) for name in tables}

    return start


Serving = Callable[..., Iterator[dict[str, Api]]]


@pytest.mark.timeout(400)
@pytest.mark.slow
def test_two_services_share_an_address_and_nothing_else(
    serving: Serving, store: redis.Redis, mail: MailServer, email: str
) -> None:
    """No token goes to the wrong service or to two requests, and the service that rests notices nothing."""
    inbox, history = Inbox(mail.box.mails), History()
    with contextmanager(serving)() as apis:
        rests = at_rest(apis["club"], email, store)
        latest = time.monotonic() + AT_MOST_S
        enough = lambda: history.enough(TOKENS) or time.monotonic() > latest  # noqa: E731
        clients = [Client(apis, inbox, email, history, seed) for seed in range(CLIENTS)]
        race([lambda client=client: client.work(enough) for client in clients])  # type: ignore[misc]
        print(f"{len(history.handed)} answers with a token; {history.answers}")  # noqa: T201
        assert history.strange() == set()
        assert history.mistakes() == []
        assert history.enough(TOKENS)
        wait_until(lambda: kinds(store)["outbox"] == 0, 60, "every mail has gone out")
        assert contradictions(store) == []
        rests()
        agree(apis, inbox, email, store)


def at_rest(api: Api, email: str, store: redis.Redis) -> Callable[[], None]:
    """Registers at a service of which nobody has the key. Returns what asserts that it is all as it was."""
    number = api.registered(email, "club's token")
    keys = Records(store, service="club").keys(email)
    look_up = api.call("GET", f"/api/users/{keys.user_id}").json()
    record = store.hgetall(keys.user)
    mails = len(api.mail.box.to(email))
    assert mails == 1

    def check() -> None:
        assert store.hgetall(keys.user) == record
        assert not store.exists(keys.sends, keys.tries, keys.verified)
        assert api.call("GET", f"/api/users/{keys.user_id}").json() == look_up
        assert [mail.number for mail in api.mail.box.to(email) if mail.sender == sender("club")] == [number]
        assert api.verify(email, number).json()["token"] == "club's token"

    return check


def agree(apis: dict[str, Api], inbox: Inbox, email: str, store: redis.Redis) -> None:
    """Each service's last mail has the number that is live there, which brings its own token."""
    numbers: dict[str, str] = {}
    for service in SERVICES:
        mails = inbox.mails(email, sender(service))
        number_of = {mail.message_id.split("-")[0].split("@")[0]: mail.number for mail in mails}
        assert all(number_of[mail.message_id.split("-")[0].split("@")[0]] == mail.number for mail in mails)
        assert len({mail.message_id for mail in mails}) == len(mails)
        stored = Records(store, service=service).of(email)
        if stored is not None:
            assert mails[-1].number == stored.number
            assert (stored.service, belongs(stored.token, service)) == (service, True)
            numbers[service] = stored.number
    assert len({*numbers.values()}) == len(numbers)
    assert kinds(store)["user"] == kinds(store)["number"] == len(numbers)
    for service, number in numbers.items():
        other = apis[SERVICES[service == SERVICES[0]]]
        assert other.verify(email, number).status_code == 403
        assert belongs(apis[service].verify(email, number).json()["token"], service)


def test_budgets_are_used_up_exactly_by_two_services_at_once(
    serving: Serving, store: redis.Redis, mail: MailServer, email: str
) -> None:
    """Ten mails for each, fifteen for the mailbox, five wrong numbers for each; and no more, by any race."""
    with contextmanager(serving)("15/hour", address_limit="10/hour", verify_limit="5/hour") as apis:
        number = apis["shop"].registered(email)
        apis["bank"].registered(email)
        statuses: dict[str, Counter[int]] = {service: Counter() for service in SERVICES}
        guesses: dict[str, Counter[int]] = {service: Counter() for service in SERVICES}
        lock = threading.Lock()

        def ask(turn: int) -> None:
            service = SERVICES[turn % 2]
            path = f"/api/users/{Records.id_of(email, service)}/resend"
            mailed = apis[service].call("POST", path) if turn % 3 else apis[service].register(email)
            guessed = apis[service].verify(email, wrong(number, turn + 1))
            with lock:
                statuses[service][mailed.status_code] += 1
                guesses[service][guessed.status_code] += 1

        race([lambda turn=turn: ask(turn) for turn in range(CLIENTS)])  # type: ignore[misc]
        for service in SERVICES:  # what 404 has left of the budgets
            while (status := apis[service].register(email).status_code) != 429:
                statuses[service][status] += 1
        accepted = {
            service: 1 + sum(found[status] for status in (200, 201, 202))
            for service, found in statuses.items()
        }
        assert sum(accepted.values()) == 15
        assert max(accepted.values()) <= 10
        # 404: the registration was replaced while its resend was under way
        assert all(set(found) <= {200, 201, 202, 404, 429} for found in statuses.values())
        assert guesses == {service: Counter({403: 5, 429: CLIENTS // 2 - 5}) for service in SERVICES}
        assert apis["club"].register(email).status_code == 429, "the mailbox is full"
        assert apis["club"].register(f"b{email}").status_code == 201
        assert apis["club"].verify(email, wrong(number)).json()["tries_left"] == 4
