"""The model of the API (tests/api/model.py), and Valkey behind the real one: whatever is done, they agree."""

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from app import create_app
from app.config import Settings
from app.domain.service import Budget
from tests.api.conftest import Api, bearer, race
from tests.api.model import ALL_MOVES, MAILBOX_LIMIT, SERVICES, Answer, Ask, Model, write_services
from tests.support.inbox import Inbox
from tests.support.scan import contradictions
from tests.support.servers import MailServer, Valkey, gunicorn, settings_for
from tests.support.tenants import key_of

CLIENTS = 32
TOKENS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
numbers = itertools.count()


class Machine(RuleBasedStateMachine):
    """Registers, hands in right, wrong and old numbers, erases, lets registrations and budgets expire."""

    ask: Ask
    inbox: Inbox
    store: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(self.ask, self.inbox, self.store, f"machine{next(numbers)}")

    @rule(
        move=st.sampled_from(ALL_MOVES),
        service=st.sampled_from(list(SERVICES)),
        which=st.integers(0, 2),
        pick=st.integers(0, 899_999),
        token=TOKENS,
    )
    def step(self, move: str, service: str, which: int, pick: int, token: str) -> None:
        self.model.step(move, service, which, pick, token)

    def teardown(self) -> None:
        self.model.check()


@contextmanager
def in_process(valkey: Valkey, smtp: MailServer, folder: Path) -> Iterator[FlaskClient]:
    """The application in this process, without its relay: nothing happens but what the rules do."""
    chosen = Settings(
        redis_url=valkey.url,
        mail_port=smtp.port,
        services_file=str(write_services(folder)),
        mailbox_limit=Budget(MAILBOX_LIMIT, 3600),
    )
    app = create_app(chosen)
    yield app.test_client()
    app.extensions["cedula"].messaging.close(5)
    app.extensions["cedula"].storage.close()


def asking(client: FlaskClient) -> Ask:
    def ask(
        service: str, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Answer:
        headers = {**bearer(key_of(service)), **(headers or {})}
        answer = client.open(path, method=method, json=body, headers=headers)
        return Answer(answer.status_code, dict(answer.get_json(silent=True) or {}))

    return ask


@pytest.mark.timeout(600)
@pytest.mark.parametrize("runs", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_the_api_does_what_the_model_does(
    valkey_server: Valkey, store: redis.Redis, mail: MailServer, tmp_path: Path, runs: int
) -> None:
    """Random runs of up to 30 steps, each with addresses of its own; any difference is shrunk to the
    shortest."""
    with in_process(valkey_server, mail, tmp_path) as client:
        Machine.ask, Machine.inbox, Machine.store = staticmethod(asking(client)), Inbox(mail.box.mails), store
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=runs,
                stateful_step_count=30,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert contradictions(store) == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("steps", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_it_does_so_for_32_clients_at_once(
    valkey_server: Valkey, store: redis.Redis, mail: MailServer, tmp_path: Path, steps: int
) -> None:
    """Each with a model and addresses of its own, all at the same services, under gunicorn."""
    more = {"SERVICES_FILE": str(write_services(tmp_path)), "MAILBOX_LIMIT": f"{MAILBOX_LIMIT}/hour"}
    environment = settings_for(valkey_server, mail) | more | {"WEB_CONCURRENCY": "2"}
    inbox = Inbox(mail.box.mails)
    with gunicorn(tmp_path, environment) as server:

        def ask(
            service: str, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
        ) -> Answer:
            answer = Api(server, key=key_of(service)).call(method, path, json=body, headers=headers or {})
            return Answer(answer.status_code, dict(answer.json()) if answer.content else {})

        def play(seed: int) -> None:
            model, chance = Model(ask, inbox, store, f"client{seed}"), random.Random(seed)
            for turn in range(steps):
                move, service = chance.choice(ALL_MOVES), chance.choice(list(SERVICES))
                which = chance.choice((0, 0, 0, 1, 2))  # one of them often: budgets are to be used up
                model.step(move, service, which, chance.randrange(899_999), f"{seed}-{turn}")
            model.check()

        race([lambda seed=seed: play(seed) for seed in range(CLIENTS)])  # type: ignore[misc]
    assert contradictions(store) == []
