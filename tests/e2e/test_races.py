"""Many at once, against gunicorn with its own configuration and a real Valkey."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from tests.support.records import Records
from tests.support.scan import contradictions, kinds
from tests.support.servers import Gunicorn, MailServer, gunicorn
from tests.support.waiting import wait_until

THREADS = 64
ADA = "ada@example.com"
LEASE_S = 9
"""Of a mail time-out of 2 s."""


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]
) -> Iterator[Gunicorn]:
    """Two workers; one address may register as often as it likes, and a lease ends soon."""
    settings = {"ADDRESS_LIMIT": "", "MAILBOX_LIMIT": "", "MAIL_TIMEOUT": "2", "WEB_CONCURRENCY": "2"}
    with gunicorn(tmp_path_factory.mktemp("service"), shared_environment | settings) as server:
        yield server


@pytest.fixture
def mail_server(mailbox: MailServer) -> MailServer:
    """The shared one, emptied."""
    mailbox.box.mails.clear()
    return mailbox


def test_an_address_that_64_threads_register_ends_with_one_number_and_the_last_mail_carries_it(
    service: Gunicorn, mail_server: MailServer, store: redis.Redis
) -> None:
    """20 times each: whoever comes last replaces everybody before, and nothing else stays behind."""

    def register_20_times(thread: int) -> list[int]:
        return [service.register(ADA, token=f"token {thread}-{turn}").status_code for turn in range(20)]

    with ThreadPoolExecutor(THREADS) as pool:
        statuses = [status for some in pool.map(register_20_times, range(THREADS)) for status in some]
    assert set(statuses) <= {201, 202}

    def nothing_is_owed() -> bool:
        left = kinds(store)
        return not left["outbox"] and not left["sender"]

    wait_until(nothing_is_owed, 4 * LEASE_S, "the outbox is empty and nobody sends")
    keys = Records(store).keys(ADA)
    assert [key.decode() for key in store.scan_iter(f"*{keys.user_id}*", count=1000)] == [keys.user]
    assert kinds(store)["user"] == kinds(store)["number"] == 1
    assert contradictions(store) == []
    mails = mail_server.box.to(ADA)
    assert mails[-1].number == Records(store).number_of(ADA)
    assert len({mail.message_id for mail in mails}) == len(mails)


@pytest.mark.parametrize(
    "people",
    [500, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(300)])],
)
def test_different_addresses_get_different_numbers(
    service: Gunicorn, mail_server: MailServer, store: redis.Redis, people: int
) -> None:
    """From 64 threads; each number is counted in Redis, and each person has a mail."""
    with ThreadPoolExecutor(THREADS) as pool:
        answers = pool.map(lambda one: service.register(f"person{one}@example.com"), range(people))
        assert {answer.status_code for answer in answers} <= {201, 202}
    assert kinds(store)["number"] == kinds(store)["user"] == people
    assert contradictions(store) == []
    wait_until(lambda: not kinds(store)["outbox"], 4 * LEASE_S, "the outbox is empty")
    assert len({mail.recipient for mail in mail_server.box.mails}) == people
