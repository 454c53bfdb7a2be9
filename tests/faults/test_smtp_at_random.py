"""A mail server that answers at random, while the service is asked over HTTP: what goes out is right."""

import email
import email.policy
import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from tests.support.authority import Authority
from tests.support.faults.smtp import Accepted, OddSmtp, at_random, ordinary
from tests.support.metrics import scraped
from tests.support.records import Records
from tests.support.servers import NUMBER, Gunicorn, gunicorn
from tests.support.values import there
from tests.support.waiting import wait_until

CLIENTS = 20
ROUNDS = 8
SETTINGS = {
    "MAIL_TIMEOUT": "0.5",
    "MAIL_CONNECTIONS": "8",
    "MAIL_DEFAULT_SENDER": "no-reply@example.com",
    "WEB_CONCURRENCY": "2",
    "ADDRESS_LIMIT": "",
    "MAILBOX_LIMIT": "",
}

COMMAND = re.compile(rb"(?mi)^(EHLO|HELO|STARTTLS|AUTH|MAIL FROM|RCPT TO|DATA|RSET|NOOP|QUIT)\b")


def register(service: Gunicorn, addresses: list[str]) -> list[int]:
    """The statuses, in the order of the addresses; as many clients as may at a time."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(lambda address: service.register(address).status_code, addresses))


def assert_right(mail: Accepted, number: str) -> str:
    """The mail is whole, for its recipient and of nobody else. Returns its Message-ID."""
    assert not COMMAND.search(mail.content)
    message = email.message_from_bytes(mail.content, policy=email.policy.default)
    assert message["To"] == mail.recipient
    assert not [defect for part in message.walk() for defect in part.defects]
    assert mail.content.endswith(f"--{message.get_boundary()}--\r\n".encode())
    for kind in ("plain", "html"):
        text = there(message.get_body((kind,))).get_content()
        assert {found.replace(" ", "") for found in NUMBER.findall(text)} >= {number}
    return str(message["Message-ID"])


# Python's ssl forgets to close a socket whose peer has reset it just before it is wrapped.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize(
    "encrypted", [pytest.param(False, marks=pytest.mark.slow), True], ids=["plain", "starttls"]
)
def test_a_mail_server_that_answers_at_random_makes_no_mail_wrong_and_loses_none(
    tmp_path: Path, environment: dict[str, str], store: redis.Redis, encrypted: bool
) -> None:
    """Wrong codes, stray replies, lines in pieces and without end, NULs, the end anywhere, STARTTLS that is
    stripped: every caller hears 201 or 202, and once the server is well each mail is there, twice at most
    with one Message-ID."""
    authority = Authority(tmp_path)
    tls = authority.server() if encrypted else None
    with OddSmtp(at_random(seed=11), tls) as server:
        settings = environment | SETTINGS | {"MAIL_PORT": str(server.port)}
        if encrypted:
            settings |= {"MAIL_USE_TLS": "true", "MAIL_CA_FILE": str(authority.ca_file)}
        with gunicorn(tmp_path, settings) as service:
            addresses = [f"person{number}@example.com" for number in range(CLIENTS * ROUNDS)]
            assert set(register(service, addresses)) <= {201, 202}
            met = server.connections

            server.script = ordinary
            wait_until(lambda: {mail.recipient for mail in server.accepted} == set(addresses), 30, "mails")
            later = (f"later{number}@example.com" for number in range(100_000))
            wait_until(
                lambda: set(register(service, [next(later) for _ in range(CLIENTS)])) == {201}, 20, "recovery"
            )
            deaths = scraped(service).get('cedula_thread_restarts_total{thread="mail-sender"}', 0)
            ready = service.http.get(f"{service.url}/readyz", timeout=20)
    assert met > CLIENTS  # of a server that is well, each of 16 senders needs one connection
    assert deaths == 0
    assert (ready.status_code, ready.json()["smtp"]) == (200, "ok")
    records, message_ids = Records(store), defaultdict(set)
    for mail in server.accepted:
        message_ids[mail.recipient].add(assert_right(mail, records.number_of(mail.recipient)))
    assert [ids for ids in message_ids.values() if len(ids) != 1] == []
