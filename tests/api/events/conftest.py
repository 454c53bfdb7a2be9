"""Services that are told events, and people who register with them.

The tests share one process. A receiver that is mistreated belongs to a service that no other test uses.
"""

import uuid
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from typing import Any

import pytest
import redis
import requests

from tests.api.conftest import Api, bearer
from tests.support.bounces import BOUNCE_ADDRESS, INDEX
from tests.support.receivers import Receipt, Receiver, receiving
from tests.support.servers import Gunicorn, Valkey, gunicorn
from tests.support.smtp import ScriptedSmtp, say
from tests.support.stores import own_valkey
from tests.support.tenants import key_of, services_file

ASYNC = {"Prefer": "respond-async"}
UNKNOWN = say("550 5.1.1 No such user")
BUSY = say("451 4.3.0 Later")

FIRST_RETRY_S = 5
ANSWER_WITHIN_S = 10
EXPIRED_WITHIN_S = 60
MACHINE_S = 2
"""What a busy machine may take on top."""

SHORT_TTL_S = 3
OTHERS = 40
"""Services, each for one test."""


# its index key is not that of other services
valkey_server = own_valkey("package")


@pytest.fixture(scope="package")
def smtp_server() -> Iterator[ScriptedSmtp]:
    server = ScriptedSmtp()
    yield server
    server.close()


@pytest.fixture
def smtp(smtp_server: ScriptedSmtp) -> ScriptedSmtp:
    """In good health."""
    smtp_server.script.clear()
    return smtp_server


@pytest.fixture(scope="package")
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="package")
def environment_without_services(valkey_server: Valkey, smtp_server: ScriptedSmtp) -> dict[str, str]:
    return {
        "REDIS_URL": valkey_server.url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(smtp_server.port),
        "MAIL_TIMEOUT": "5",
        "INDEX_KEY": INDEX,
        "BOUNCE_ADDRESS": BOUNCE_ADDRESS,
        "ADDRESS_LIMIT": "",
        "MAILBOX_LIMIT": "",
        "FLASK_SKIP_DOTENV": "1",  # a developer's .env
    }


@pytest.fixture(scope="package")
def settings(
    environment_without_services: dict[str, str],
    receiver: Receiver,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """Of the shared process. A test service can be asked for its mails."""
    tables = {
        "shop": receiver.table("shop", secrets=2),
        "quiet": {},
        "rehearsal": receiver.table("rehearsal", test=True),
        "brief": receiver.table("brief", test=True, number_ttl=SHORT_TTL_S),
        "hush": {"test": True, "number_ttl": SHORT_TTL_S},
        **{f"other{number}": receiver.table(f"other{number}", test=True) for number in range(OTHERS)},
    }
    file = services_file(tmp_path_factory.mktemp("services"), **tables)
    return environment_without_services | {"SERVICES_FILE": str(file)}


@pytest.fixture(scope="package")
def telling(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    with gunicorn(tmp_path_factory.mktemp("service"), settings) as server:
        yield server


_numbers = count()


@pytest.fixture
def other() -> str:
    """A test service that no other test uses."""
    return f"other{next(_numbers)}"


@pytest.fixture
def another() -> str:
    """One more."""
    return f"other{next(_numbers)}"


class Person:
    """Somebody who registers with a service. A test service shows the number; others mail it."""

    def __init__(self, api: Api, smtp: ScriptedSmtp, email: str) -> None:
        self.api, self._smtp, self.email = api, smtp, email
        self.id = ""
        self.created_at: list[str] = []
        """Of each registration."""

    def registers(self, status: int = 201, **more: Any) -> None:
        answer = self.api.register(self.email, **more)
        assert answer.status_code == status, answer.text
        if status < 300:
            self.id = answer.json()["id"]
            self.created_at.append(answer.json()["created_at"])

    def resends(self) -> None:
        assert self.api.call("POST", f"/api/users/{self.id}/resend").status_code == 200

    def erases(self) -> None:
        assert self.api.call("DELETE", f"/api/users/{self.id}").status_code == 204

    @property
    def number(self) -> str:
        """That of the last mail."""
        shown = self.api.call("GET", f"/api/users/{self.id}/mail")
        return str(shown.json()["number"]) if shown.ok else self._smtp.wait_for(self.email)[-1].number

    def verifies(self, **more: Any) -> str:
        """Hands in the number; returns it."""
        number = self.number
        answer = self.api.verify(self.email, number, **more)
        assert answer.status_code == 200, answer.text
        return number

    def tag(self, mail: int = -1) -> str:
        """That by which reports know one of the mails."""
        return self._smtp.wait_for(self.email)[mail].sender.partition("@")[0].partition("+")[2]

    def reported(self, kind: str, mail: int = -1) -> None:
        """What the service's mail provider has to say of a mail."""
        answer = self.api.call("POST", "/api/bounces", json={"tag": self.tag(mail), "kind": kind})
        assert answer.status_code == 204, answer.text


def address(name: str = "ada") -> str:
    """One that no other test uses."""
    return f"{name}@{uuid.uuid4().hex[:12]}.example.com"


Comes = Callable[..., Person]


@pytest.fixture
def comes(telling: Gunicorn, store: redis.Redis, smtp: ScriptedSmtp) -> Comes:
    """Makes somebody new, with a service's key; on an empty store."""
    return lambda service, name="ada": Person(Api(telling, key=key_of(service)), smtp, address(name))


@pytest.fixture
def ada(comes: Comes) -> Person:
    """Somebody new at the shop."""
    return comes("shop")


def registered(server: Gunicorn, service: str, times: int) -> list[str]:
    """The ids of so many registrations; each has a connection of its own, so that every worker has some."""
    ids = []
    for _ in range(times):
        answer = requests.post(
            f"{server.url}/api/users",
            json={"email": address(), "token": "t0ken"},
            headers=bearer(key_of(service)),
            timeout=30,
        )
        assert answer.status_code == 201, answer.text
        ids.append(answer.json()["id"])
    return ids


def assert_in_order(attempts: list[Receipt]) -> None:
    """Of one user: no event is sent before the one before it was taken."""
    for before, then in pairwise(attempts):
        assert then.event_id == before.event_id or before.is_taken
