"""Many clients do as they like with a few addresses; afterwards, what they were told must fit together."""

import random
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
import redis

from tests.api.conftest import Api
from tests.support.scan import contradictions
from tests.support.waiting import wait_until

CLIENTS = 32
ADDRESSES = 12
REGISTERING = 0.2
"""The share of registrations; the rest hands numbers in."""


@dataclass(frozen=True)
class Told:
    """A token, and when the request that was answered with it began and ended."""

    token: str
    began: float
    ended: float


@dataclass
class History:
    """Of one address: registrations that were acknowledged, and tokens that were handed out."""

    registered: list[Told] = field(default_factory=list)
    handed_out: list[Told] = field(default_factory=list)

    def mistakes(self) -> list[str]:
        """Tokens handed out twice, never registered, or replaced before by an acknowledged registration."""
        found = []
        known = {told.token: told for told in self.registered}
        tokens = [told.token for told in self.handed_out]
        found += [
            f"handed out {tokens.count(token)} times: {token}"
            for token in {*tokens}
            if tokens.count(token) > 1
        ]
        for out in self.handed_out:
            first = known.get(out.token)
            if first is None:
                continue  # its registration was not acknowledged, but may stand
            for later in self.registered:
                if later.began > first.ended and later.ended < out.began:
                    found.append(f"{out.token} was handed out after {later.token} had replaced it")
        return found


class Inbox:
    """The numbers that were mailed to each address, read once."""

    def __init__(self, api: Api) -> None:
        self._mails = api.mail.box.mails
        self._read = len(self._mails)
        self._lock = threading.Lock()
        self._numbers: dict[str, list[str]] = defaultdict(list)

    def newest(self, email: str) -> list[str]:
        """The last two at most."""
        with self._lock:
            while self._read < len(self._mails):
                mail = self._mails[self._read]
                self._numbers[mail.recipient].append(mail.number)
                self._read += 1
            return self._numbers[email][-2:]


class Client:
    """Registers and hands in what the mailbox holds, in random order."""

    def __init__(self, api: Api, inbox: Inbox, histories: dict[str, History], seed: int) -> None:
        self.api, self.inbox, self.histories = api, inbox, histories
        self.emails = list(histories)
        self.random = random.Random(seed)
        self.strange: list[str] = []
        self.count = 0

    def work(self, until: float) -> None:
        while time.monotonic() < until:
            email = self.random.choice(self.emails)
            self.count += 1
            if self.random.random() < REGISTERING:
                self.register(email)
            else:
                self.hand_in(email)

    def register(self, email: str) -> None:
        token, began = f"{id(self)}-{self.count}", time.monotonic()
        headers = {"Prefer": "respond-async"} if self.random.random() < 0.3 else {}
        answer = self.api.register(email, token, headers=headers)
        if answer.status_code in (201, 202):
            self.histories[email].registered.append(Told(token, began, time.monotonic()))
        else:
            self.strange.append(f"register: {answer.status_code}")

    def hand_in(self, email: str) -> None:
        numbers = self.inbox.newest(email)
        if not numbers:
            return
        number, began = self.random.choice(numbers), time.monotonic()
        answer = self.api.verify(email, number)
        if answer.status_code == 200:
            self.histories[email].handed_out.append(Told(answer.json()["token"], began, time.monotonic()))
        elif answer.status_code != 403:
            self.strange.append(f"verify: {answer.status_code}")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seconds", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_each_token_is_handed_out_once_and_never_after_it_was_replaced(
    api: Api, store: redis.Redis, email: str, seconds: int
) -> None:
    """32 clients, twelve addresses; the newest numbers are handed in again and again."""
    histories = {f"{turn}{email}": History() for turn in range(ADDRESSES)}
    inbox = Inbox(api)
    clients = [Client(api, inbox, histories, seed) for seed in range(CLIENTS)]
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=client.work, args=(until,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [strange for client in clients for strange in client.strange] == []
    assert [mistake for history in histories.values() for mistake in history.mistakes()] == []
    handed_out = sum(len(history.handed_out) for history in histories.values())
    registered = sum(len(history.registered) for history in histories.values())
    print(f"{registered} registrations, {handed_out} tokens")  # noqa: T201 - how much was tried
    assert handed_out > seconds * 2
    wait_until(lambda: contradictions(store) == [], 30)
