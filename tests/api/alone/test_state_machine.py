"""A small model of the whole API, and Valkey behind the real one: whatever is done, they agree."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import redis
from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from app import create_app
from app.config import Settings
from app.domain.budget import Budget
from app.domain.number import NumberGenerator
from app.repositories.keys import Field
from tests.api.conftest import wrong
from tests.support.records import Records
from tests.support.scan import contradictions, kinds
from tests.support.servers import MailServer, Valkey
from tests.support.values import text

EVERYBODY = ("ada@example.com", "bob@example.com", "eve@example.com")
ADDRESSES = st.sampled_from(EVERYBODY)
TOKENS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
REGISTRATIONS, GUESSES = 6, 4
"""The budgets: small, so that runs use them up."""

NOBODYS_NUMBER = NumberGenerator(10, lambda _: 0).draw(0)


@dataclass
class Person:
    """What the model knows of an address."""

    token: str | None = None
    number: str = ""
    old: list[str] = field(default_factory=list)
    registrations: int = 0
    guesses: int = 0

    def end(self) -> None:
        if self.token is not None:
            self.old.append(self.number)
        self.token = None


class Model(RuleBasedStateMachine):
    """Registers, hands in right, wrong and old numbers, erases, lets registrations and budgets expire."""

    client: FlaskClient
    store: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.store.flushall()
        self.records = Records(self.store)
        self.people = {
            address: Person() for address in ("ada@example.com", "bob@example.com", "eve@example.com")
        }

    @rule(address=ADDRESSES, token=TOKENS)
    def register(self, address: str, token: str) -> None:
        person = self.people[address]
        answer = self.client.post("/api/users", json={"email": address, "token": token})
        if person.registrations == REGISTRATIONS:
            assert answer.status_code == 429
            return
        assert answer.status_code == 201, answer.text
        person.end()
        person.registrations += 1
        person.token, person.number = token, self.records.number_of(address)
        assert person.number not in person.old

    @rule(address=ADDRESSES)
    def hand_in_the_right_number(self, address: str) -> None:
        person = self.people[address]
        if person.token is None:
            return
        answer = self._hand_in(address, person.number)
        if person.guesses == GUESSES:
            assert answer == (429, None)
        else:
            assert answer == (200, person.token)
            person.end()

    @rule(address=ADDRESSES, data=st.data())
    def hand_in_an_old_number(self, address: str, data: st.DataObject) -> None:
        if self.people[address].old:
            self._fails(address, data.draw(st.sampled_from(self.people[address].old)))

    @rule(address=ADDRESSES, other=st.integers(1, 899_999))
    def hand_in_a_wrong_number(self, address: str, other: int) -> None:
        self._fails(address, wrong(self.people[address].number or NOBODYS_NUMBER, other))

    @rule(address=ADDRESSES, other=ADDRESSES)
    def hand_in_another_s_number(self, address: str, other: str) -> None:
        if address != other and self.people[other].number:
            self._fails(address, self.people[other].number)

    @rule(address=ADDRESSES)
    def erase(self, address: str) -> None:
        person = self.people[address]
        answer = self.client.delete(f"/api/users/{self.records.keys(address).user_id}")
        assert answer.status_code == (404 if person.token is None else 204)
        person.end()

    @rule(address=ADDRESSES)
    def expire(self, address: str) -> None:
        """What Redis does at the end of NUMBER_TTL: record and number go in the same moment."""
        keys, stored = (
            self.records.keys(address),
            self.store.hget(self.records.keys(address).user, Field.NUMBER),
        )
        if stored is not None:
            number = keys.number_prefix + text(stored)
            assert self.store.pexpiretime(keys.user) == self.store.pexpiretime(number) > 0
            for key in (keys.user, number):
                self.store.pexpire(key, 0)
            self.people[address].end()

    @rule(address=ADDRESSES)
    def a_window_ends(self, address: str) -> None:
        keys, person = self.records.keys(address), self.people[address]
        for key, spent in ((keys.sends, person.registrations), (keys.tries, person.guesses)):
            assert self.store.pexpire(key, 0) == bool(spent)
        person.registrations = person.guesses = 0

    @invariant()
    def looking_up_agrees(self) -> None:
        for address, person in self.people.items():
            answer = self.client.get(f"/api/users/{self.records.keys(address).user_id}")
            assert answer.status_code == (404 if person.token is None else 200)
            if person.token is not None:
                assert answer.json is not None
                assert (answer.json["email"], answer.json["delivery"]) == (address, "sent")

    def teardown(self) -> None:
        assert contradictions(self.store) == []
        live = sum(person.token is not None for person in self.people.values())
        found = kinds(self.store)
        assert found["user"] == found["number"] == live
        assert found["outbox"] == found["sender"] == 0
        assert all(self.store.pttl(key) > 0 for key in self.store.scan_iter("*") if b"keycheck" not in key)

    def _hand_in(self, address: str, number: str) -> tuple[int, str | int | None]:
        """The status, with the token or the tries that are left."""
        answer = self.client.post("/api/users/verify", json={"email": address, "number": number})
        assert answer.json is not None
        return answer.status_code, answer.json.get("token", answer.json.get("tries_left"))

    def _fails(self, address: str, number: str) -> None:
        person = self.people[address]
        if person.token is not None and number == person.number:
            return
        if person.guesses == GUESSES:
            assert self._hand_in(address, number) == (429, None)
        else:
            person.guesses += 1
            assert self._hand_in(address, number) == (403, GUESSES - person.guesses)


@contextmanager
def service(valkey: Valkey, smtp: MailServer) -> Iterator[FlaskClient]:
    """The application in this process, without its relay: nothing happens but what the rules do."""
    chosen = Settings(
        redis_url=valkey.url,
        mail_port=smtp.port,
        mail_default_sender="no-reply@example.com",
        number_ttl_s=3600,
        address_limit=Budget(REGISTRATIONS, 3600),
        verify_limit=Budget(GUESSES, 3600),
    )
    app = create_app(chosen)
    yield app.test_client()
    app.extensions["cedula"].messaging.close(5)
    app.extensions["cedula"].storage.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("runs", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_the_api_does_what_the_model_does(
    valkey_server: Valkey, store: redis.Redis, mail: MailServer, runs: int
) -> None:
    """Random runs of up to 30 steps, each on an empty store; any difference is shrunk to the shortest."""
    with service(valkey_server, mail) as client:
        Model.client, Model.store = client, store
        run_state_machine_as_test(
            Model,
            settings=settings(
                max_examples=runs,
                stateful_step_count=30,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
