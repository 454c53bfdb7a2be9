"""A small model of the whole API with its services: whatever is done, the model and the API must agree.

It looks at nothing but its own addresses, so many of them may be at work at the same time.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import redis

from app.domain.address import Address
from app.domain.number import NumberGenerator
from app.repositories.keys import Field, Names, UserKeys
from app.repositories.scripts import OTHER_NUMBERS
from tests.api.conftest import named, wrong
from tests.support.inbox import Inbox
from tests.support.tenants import services_file
from tests.support.values import text, there


class Limits(NamedTuple):
    """Of one service: mails and wrong numbers an hour. Small, so that runs use them up."""

    mails: int
    guesses: int
    test: bool = False


SERVICES = {"shop": Limits(5, 4), "bank": Limits(6, 3), "rehearsal": Limits(4, 2, test=True)}
MAILBOX_LIMIT = 7
KEYS = ("", "first", "second")
"""Idempotency-Keys of those who hand a number in."""

NOBODYS_NUMBER = NumberGenerator(10, lambda _: 0).draw(0)


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]


class Ask(Protocol):
    """Calls the API with the key of a service."""

    def __call__(
        self, service: str, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Answer: ...


@dataclass
class Person:
    """What the model knows of one address at one service."""

    token: str | None = None
    number: str = ""
    mails: int = 0
    """Of the live registration."""
    mailed: int = 0
    """Of all."""
    spent: int = 0
    guesses: int = 0
    handed: tuple[str, str] | None = None
    """The key and the number by which the last token was handed out, and may be again."""
    handed_token: str = ""
    others: int = 0
    """Other numbers that came under that key."""
    old: list[str] = field(default_factory=list)

    def end(self) -> None:
        if self.token is not None:
            self.old.append(self.number)
        self.token = None


def write_services(folder: Path) -> Path:
    """The SERVICES_FILE of what the model assumes."""
    return services_file(
        folder,
        **{
            name: {
                "sender": sender(name),
                "number_ttl": 3600,
                "address_limit": f"{limits.mails}/hour",
                "verify_limit": f"{limits.guesses}/hour",
                "test": limits.test,
            }
            for name, limits in SERVICES.items()
        },
    )


def sender(service: str) -> str:
    return f"no-reply@{service}.example"


class Model:
    """Three addresses, two of them of one mailbox, at all services. A move takes a service, an address and
    a number by which it chooses, and asserts that the API does what the model expects."""

    def __init__(self, ask: Ask, inbox: Inbox, store: redis.Redis, name: str) -> None:
        """`name`: of the addresses; nobody else has it."""
        self.ask, self.inbox, self.store = ask, inbox, store
        self.emails = [f"{name}@example.com", f"{name}+news@example.com", f"{name}.b@example.com"]
        self.people = {(service, email): Person() for service in SERVICES for email in self.emails}
        self.mailboxes: Counter[str] = Counter()
        self.names = Names(None)

    def step(self, move: str, service: str, which: int, pick: int, token: str = "t0ken") -> None:
        """One move, and what it did to that address at every service."""
        email = self.emails[which]
        if move == "register":
            self.register(service, email, token)
        else:
            MOVES[move](self, service, email, pick)
        for each in SERVICES:
            self.look_up(each, email)

    # Moves

    def register(self, service: str, email: str, token: str) -> None:
        answer = self.ask(service, "POST", "/api/users", {"email": email, "token": token})
        if not self._may_mail(service, email):
            assert answer.status == 429, answer
            return
        assert (answer.status, answer.body["id"]) == (201, self.keys(service, email).user_id), answer
        person = self.people[service, email]
        person.end()
        person.token, person.mails = token, 0
        self._is_mailed(service, email)
        person.number = self._number(service, email)

    def resend(self, service: str, email: str, pick: int) -> None:
        """The same number, by another mail."""
        person = self.people[service, email]
        answer = self.ask(service, "POST", f"{self._path(service, email)}/resend")
        if person.token is None:
            assert answer.status == 404
        elif not self._may_mail(service, email):
            assert answer.status == 429
        else:
            assert (answer.status, answer.body["delivery"]) == (200, "sent"), answer
            self._is_mailed(service, email)
            assert self._number(service, email) == person.number

    def hand_in(self, service: str, email: str, pick: int) -> None:
        """The right number."""
        if self.people[service, email].token is not None:
            self._hand_in(service, email, self.people[service, email].number, KEYS[pick % 3])

    def repeat(self, service: str, email: str, pick: int) -> None:
        """The same request again, or the same number under another key, or another number under its key."""
        person = self.people[service, email]
        if person.handed is not None:
            key, number = person.handed
            for number_, key_ in ((number, key), (number, KEYS[pick % 3]), (wrong(number), key))[: pick % 4]:
                self._hand_in(service, email, number_, key_)

    def hand_in_an_old_number(self, service: str, email: str, pick: int) -> None:
        if old := self.people[service, email].old:
            self._hand_in(service, email, old[pick % len(old)], KEYS[pick % 3])

    def hand_in_a_wrong_number(self, service: str, email: str, pick: int) -> None:
        number = self.people[service, email].number or NOBODYS_NUMBER
        self._hand_in(service, email, wrong(number, pick % 899_999 + 1), KEYS[pick % 3])

    def hand_in_another_s_number(self, service: str, email: str, pick: int) -> None:
        """Of another address, or of the same one at another service; also under the key that got it."""
        others = [person for who, person in self.people.items() if who != (service, email) and person.number]
        if others:
            other = others[pick % len(others)]
            self._hand_in(service, email, other.number, other.handed[0] if other.handed else "")

    def erase(self, service: str, email: str, pick: int) -> None:
        person = self.people[service, email]
        answer = self.ask(service, "DELETE", self._path(service, email))
        assert answer.status == (404 if person.token is None and person.handed is None else 204)
        person.handed = None
        person.end()

    def ask_for_another_s(self, service: str, email: str, pick: int) -> None:
        """Whether it is there or not: every other service is told that there is none."""
        for stranger in SERVICES:
            if stranger != service:
                method, more = (("GET", ""), ("DELETE", ""), ("POST", "/resend"), ("GET", "/mail"))[pick % 4]
                assert self.ask(stranger, method, self._path(service, email) + more).status == 404

    def expire(self, service: str, email: str, pick: int) -> None:
        """What Redis does at the end of NUMBER_TTL: record and number go in the same moment."""
        keys, person = self.keys(service, email), self.people[service, email]
        if person.token is not None:
            number = keys.number_prefix + text(self.store.hget(keys.user, Field.NUMBER))
            assert self.store.pexpiretime(keys.user) == self.store.pexpiretime(number) > 0
            for key in (keys.user, number):
                self.store.pexpire(key, 0)
            person.end()

    def forget(self, service: str, email: str, pick: int) -> None:
        """Two minutes after a number was handed in."""
        person = self.people[service, email]
        assert self.store.pexpire(self.keys(service, email).verified, 0) == (person.handed is not None)
        person.handed = None

    def a_window_ends(self, service: str, email: str, pick: int) -> None:
        keys, person = self.keys(service, email), self.people[service, email]
        for key, spent in ((keys.sends, person.spent), (keys.tries, person.guesses)):
            assert self.store.pexpire(key, 0) == bool(spent)
        person.spent = person.guesses = 0

    def a_mailbox_s_window_ends(self, service: str, email: str, pick: int) -> None:
        address = Address.parse(email)
        key = self.keys(service, email).mailbox(self.names.mailbox(address))
        assert self.store.pexpire(key, 0) == bool(self.mailboxes[address.mailbox])
        self.mailboxes[address.mailbox] = 0

    # What must hold

    def look_up(self, service: str, email: str) -> None:
        """The look-up agrees, and so do the mails."""
        person, live = self.people[service, email], self.people[service, email].token is not None
        answer = self.ask(service, "GET", self._path(service, email))
        assert answer.status == (200 if live else 404), answer
        if live:
            assert (answer.body["email"], answer.body["delivery"]) == (email, "sent")
            assert answer.body["mail_attempts"] == person.mails
        shown = self.ask(service, "GET", self._path(service, email) + "/mail")
        assert shown.status == (200 if live and SERVICES[service].test else 404)
        mails = self.inbox.mails(email, sender(service))
        assert len(mails) == (0 if SERVICES[service].test else person.mailed)

    def check(self) -> None:
        """At the end: Redis holds what the model knows, and nothing else of these addresses."""
        for (service, email), person in self.people.items():
            self.look_up(service, email)
            keys = self.keys(service, email)
            live = person.token is not None
            number = keys.number_prefix + self.names.number(person.number)
            assert self.store.exists(keys.user) == live
            assert (text(self.store.get(number)) == keys.user_id) == live
            for old in {*person.old} - {person.number}:
                assert text(self.store.get(keys.number_prefix + self.names.number(old))) != keys.user_id
            assert self.store.exists(keys.sender) == 0
            assert self.store.zscore(keys.outbox, keys.user_id) is None
            assert all(
                self.store.pttl(key) != -1 for key in (*keys.mail[:2], keys.sends, keys.suppressed, number)
            )
            ids = [mail.message_id for mail in self.inbox.mails(email, sender(service))]
            assert len({*ids}) == len(ids)
        live_numbers = [person.number for person in self.people.values() if person.token is not None]
        assert len({*live_numbers}) == len(live_numbers)

    def keys(self, service: str, email: str) -> UserKeys:
        return self.names.user(service, Address.parse(email))

    def _path(self, service: str, email: str) -> str:
        return f"/api/users/{self.keys(service, email).user_id}"

    def _may_mail(self, service: str, email: str) -> bool:
        in_mailbox = 0 if SERVICES[service].test else self.mailboxes[Address.parse(email).mailbox]
        return self.people[service, email].spent < SERVICES[service].mails and in_mailbox < MAILBOX_LIMIT

    def _is_mailed(self, service: str, email: str) -> None:
        person = self.people[service, email]
        person.spent += 1
        person.mails += 1
        person.mailed += 1
        self.mailboxes[Address.parse(email).mailbox] += not SERVICES[service].test

    def _number(self, service: str, email: str) -> str:
        """What the newest mail brings, or shows."""
        if SERVICES[service].test:
            answer = self.ask(service, "GET", self._path(service, email) + "/mail")
            return str(answer.body["number"])
        return self.inbox.mails(email, sender(service))[-1].number

    def _hand_in(self, service: str, email: str, number: str, key: str) -> None:
        person, most = self.people[service, email], SERVICES[service].guesses
        expected: tuple[int, str | int | None]
        if key and person.handed and person.handed[0] == key and person.handed[1] != number:
            person.others += 1
            if person.others == OTHER_NUMBERS:
                person.handed = None
        if key and person.handed == (key, number):
            expected = 200, person.handed_token
        elif person.guesses == most:
            expected = 429, None
        elif person.token is not None and number == person.number:
            expected = 200, person.token
            if key:
                person.handed, person.handed_token, person.others = (key, number), person.token, 0
            person.end()
        else:
            person.guesses += 1
            expected = 403, most - person.guesses
        body, headers = {"email": email, "number": number}, named(key) if key else None
        answer = self.ask(service, "POST", "/api/users/verify", body, headers)
        told = answer.body.get("token", answer.body.get("tries_left"))
        assert (answer.status, told) == expected
        if answer.status == 200:
            assert answer.body["id"] == self.keys(service, there(answer.body["email"])).user_id


MOVES: dict[str, Callable[[Model, str, str, int], None]] = {
    move.__name__: move
    for move in (
        Model.resend,
        Model.hand_in,
        Model.repeat,
        Model.hand_in_an_old_number,
        Model.hand_in_a_wrong_number,
        Model.hand_in_another_s_number,
        Model.erase,
        Model.ask_for_another_s,
        Model.expire,
        Model.forget,
        Model.a_window_ends,
        Model.a_mailbox_s_window_ends,
    )
}
ALL_MOVES = ("register", *MOVES)
