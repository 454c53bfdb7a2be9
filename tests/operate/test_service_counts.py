"""How far the registrations of each service have come, as /metrics tells it."""

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from app.directory.directory import digest
from tests.api.conftest import Api, named, wrong
from tests.operate.test_commands import run
from tests.support import metrics
from tests.support.bounces import BOUNCE_ADDRESS, INDEX, read_by_command
from tests.support.metrics import Samples, folders_of, latest, stages
from tests.support.servers import Gunicorn, MailServer, gunicorn
from tests.support.stores import own_valkey
from tests.support.tenants import key_of, services_file
from tests.support.waiting import wait_until
from tests.unit.test_reports import TAG, fixture

OPERATOR = "the-key-of-the-operator"


# its index key is not that of other services
valkey_server = own_valkey("module")


@pytest.fixture(scope="module")
def settings_here(
    shared_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Two services in a file, one of them a test service, and two workers that know their mails again."""
    file = services_file(tmp_path_factory.mktemp("services"), shop={}, rehearsal={"test": True})
    return shared_environment | {
        "SERVICES_FILE": str(file),
        "API_KEYS": f"operator:{digest(OPERATOR)}",
        "BOUNCE_ADDRESS": BOUNCE_ADDRESS,
        "INDEX_KEY": INDEX,
        "WEB_CONCURRENCY": "2",
    }


@pytest.fixture(scope="module")
def counting(settings_here: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    with gunicorn(tmp_path_factory.mktemp("counting"), settings_here) as service:
        yield service


@pytest.fixture
def shop(counting: Gunicorn, mailbox: MailServer, store: redis.Redis) -> Api:
    return Api(counting, mailbox, key_of("shop"))


@pytest.fixture
def rehearsal(counting: Gunicorn, mailbox: MailServer, store: redis.Redis) -> Api:
    return Api(counting, mailbox, key_of("rehearsal"))


@pytest.fixture
def email() -> str:
    return f"ada.{uuid.uuid4().hex[:12]}@example.com"


def scraped(service: Gunicorn) -> Samples:
    """By a worker that knows what all have counted until now."""
    wait_until(lambda: len(snapshots(service)) == 2, 20, "both tell")
    return latest(service, OPERATOR)


def snapshots(service: Gunicorn) -> list[Path]:
    return [path for folder in folders_of(service) for path in folder.glob("*.json")]


def come_since(before: Samples, service: Gunicorn, name: str) -> dict[str, float]:
    """What was counted meanwhile."""
    then, now = stages(before, name), stages(scraped(service), name)
    return {stage: value - then.get(stage, 0) for stage, value in now.items() if value != then.get(stage, 0)}


def bounce_of(mailbox: MailServer, email: str, name: str = "postfix-unknown-user") -> bytes:
    """A fixture about the last mail to this address."""
    tag = mailbox.box.wait_for(email)[-1].sender.partition("@")[0].partition("+")[2]
    return fixture(name).replace(TAG.encode(), tag.encode())


def test_each_step_of_a_registration_is_counted_once_for_its_service(shop: Api, email: str) -> None:
    """Registered, sent, sent again, verified; not what is repeated, wrong or refused."""
    before = scraped(shop.server)
    for _ in range(2):
        assert shop.register(email, headers=named("first")).status_code == 201
    user_id = shop.register(email).json()["id"]
    number = shop.mail.box.wait_for(email, 2)[-1].number
    assert shop.call("POST", f"/api/users/{user_id}/resend").status_code == 200
    assert shop.verify(email, wrong(number)).status_code == 403
    for _ in range(3):
        assert shop.verify(email, number, headers=named("second")).status_code == 200
    assert come_since(before, shop.server, "shop") == {"registered": 2, "sent": 3, "verified": 1}
    assert come_since(before, shop.server, "default") == {}


def test_every_service_is_told_before_its_first_registration(
    tmp_path: Path, settings_here: dict[str, str], store: redis.Redis
) -> None:
    """So that Prometheus sees the first one as a rise from 0. A reload makes new ones known."""
    file = services_file(tmp_path, shop={})
    stage = 'cedula_service_registrations_total{{service="{}",stage="verified"}}'
    with gunicorn(tmp_path, settings_here | {"SERVICES_FILE": str(file)}) as service:
        found = scraped(service)
        assert found[stage.format("shop")] == found[stage.format("default")] == 0
        assert found['cedula_service_test{service="shop"}'] == 0
        services_file(tmp_path, shop={}, bank={"test": True})
        service.process.send_signal(signal.SIGHUP)
        # by a new worker; the snapshots of the old ones, which keep their counts, are renewed no more
        of_bank = [stage.format("bank"), 'cedula_service_test{service="bank"}']
        told = lambda: [*map(metrics.scraped(service, OPERATOR).get, of_bank)]  # noqa: E731
        wait_until(lambda: told() == [0, 1], 40, "the reload")


@pytest.mark.parametrize("way", ["http", "command"])
def test_a_mail_that_came_back_is_counted_once_however_often_and_wherever_it_is_reported(
    shop: Api, settings_here: dict[str, str], email: str, way: str
) -> None:
    """A complaint after it is another thing. What a command has read is told by whoever is asked next."""
    before = scraped(shop.server)
    shop.register(email)
    for name in ("postfix-unknown-user", "postfix-unknown-user", "aol-arf"):
        message = bounce_of(shop.mail, email, name)
        if way == "command":
            assert read_by_command(settings_here, message).stdout.endswith(b" noted\n")
        else:
            headers = {"Content-Type": "message/rfc822"}
            assert shop.call("POST", "/api/bounces", data=message, headers=headers).status_code == 204
    reports = 'cedula_reports_total{kind="bounced",outcome="noted"}'
    wait_until(lambda: scraped(shop.server).get(reports, 0) == before.get(reports, 0) + 2, 30, "its reports")
    expected = {"registered": 1, "sent": 1, "bounced": 1, "complained": 1}
    assert come_since(before, shop.server, "shop") == expected


def test_a_mail_that_the_operator_gives_up_counts_as_failed(
    rehearsal: Api, settings_here: dict[str, str]
) -> None:
    """A command counts it, and who serves tells it."""
    before = scraped(rehearsal.server)
    answer = rehearsal.register(f"deferred@{uuid.uuid4().hex}.example.com")
    dropped = run(settings_here, "outbox", "drop", answer.json()["id"])
    assert (dropped.returncode, dropped.stdout) == (0, "dropped\n")
    expected = {"registered": 1, "failed": 1}
    wait_until(lambda: come_since(before, rehearsal.server, "rehearsal") == expected, 30, "it is counted")


def test_a_test_service_is_counted_as_what_its_callers_are_told(rehearsal: Api, email: str) -> None:
    """By its own name; nothing of it counts as a mail."""
    before = scraped(rehearsal.server)
    registered = rehearsal.register(email)
    assert rehearsal.register(f"refused@{uuid.uuid4().hex}.example.com").status_code == 422
    assert rehearsal.register(f"deferred@{uuid.uuid4().hex}.example.com").status_code == 202
    number = rehearsal.call("GET", f"/api/users/{registered.json()['id']}/mail").json()["number"]
    assert rehearsal.verify(email, number).status_code == 200
    assert come_since(before, rehearsal.server, "rehearsal") == {"registered": 3, "sent": 1, "verified": 1}
    after = scraped(rehearsal.server)
    assert after['cedula_service_test{service="rehearsal"}'] == 1
    mails = [name for name in after if name.startswith("cedula_deliveries_total")]
    assert {name: after[name] for name in mails} == {name: before[name] for name in mails}


@pytest.mark.slow
def test_what_a_command_has_counted_outlives_a_service_that_is_away(
    tmp_path: Path, settings_here: dict[str, str], mailbox: MailServer, store: redis.Redis, email: str
) -> None:
    """It waits in Redis, with an end, for the next one that is asked; garbage among it hurts nobody."""
    with gunicorn(tmp_path, settings_here) as service:
        Api(service, mailbox, key_of("shop")).register(email)
    store.rpush("cedula:counts", b"{", b'[[["cedula_gone"], [1]]]', b"[1]", b"\xff")
    read_by_command(settings_here, bounce_of(mailbox, email))
    assert 0 < store.pttl("cedula:counts") <= 86_400_000
    with gunicorn(tmp_path, settings_here) as service:
        found = scraped(service)
        assert stages(found, "shop") == {"bounced": 1}
        assert found["cedula_storage_up"] == 1
    assert not store.exists("cedula:counts")
