"""An endpoint that is written in an afternoon: the last column of the comparison in the README."""

import json
import secrets
import smtplib
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from threading import Barrier

import pytest
import redis

from tests.support.servers import MailServer, Valkey, free_port
from tests.support.values import text
from tests.support.waiting import wait_until

EMAIL, TOKEN = "ada@example.com", "order 4711"
CALLERS = 16


class HomeMade:
    """A number in Redis for ten minutes, and a mail in the request: as many have it."""

    def __init__(self, store: redis.Redis, mail_port: int) -> None:
        self._store, self._mail_port = store, mail_port

    def register(self, email: str, token: str) -> None:
        number = f"{secrets.randbelow(1_000_000):06}"
        self._store.set(f"code:{email}", json.dumps({"number": number, "token": token}), ex=600)
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "no-reply@example.com", email, "Your number"
        mail.set_content(f"Your number is {number}.")
        with smtplib.SMTP("127.0.0.1", self._mail_port, timeout=10) as server:
            server.send_message(mail)

    def verify(self, email: str, number: str) -> str | None:
        """The token."""
        found = json.loads(text(self._store.get(f"code:{email}")) or "{}")
        if found.get("number") != number:
            return None
        self._store.delete(f"code:{email}")
        return str(found["token"])


@pytest.fixture
def ours(store: redis.Redis, mail_server: MailServer) -> HomeMade:
    return HomeMade(store, mail_server.port)


def number_in(store: redis.Redis) -> str:
    return str(json.loads(text(store.get(f"code:{EMAIL}")))["number"])


def test_the_right_number_brings_the_token_to_many_who_come_at_once(
    ours: HomeMade, store: redis.Redis
) -> None:
    """To look, to compare and to delete are three steps."""
    start = Barrier(CALLERS)

    def hand_in(number: str) -> str | None:
        start.wait(30)
        return ours.verify(EMAIL, number)

    def won(pool: ThreadPoolExecutor) -> int:
        ours.register(EMAIL, TOKEN)
        return [*pool.map(hand_in, [number_in(store)] * CALLERS)].count(TOKEN)

    with ThreadPoolExecutor(CALLERS) as pool:
        wait_until(lambda: won(pool) > 1, 30, "two with the token")


def test_a_mail_server_that_is_away_is_an_error_and_the_mail_is_forgotten(
    store: redis.Redis, valkey_server: Valkey
) -> None:
    """The number is stored, and nobody has it."""
    with pytest.raises(OSError, match="refused"):
        HomeMade(store, free_port()).register(EMAIL, TOKEN)
    assert number_in(store)


def test_nobody_counts_the_guesses(ours: HomeMade, store: redis.Redis) -> None:
    """The right number is right after a thousand wrong ones."""
    ours.register(EMAIL, TOKEN)
    number = number_in(store)
    for guess in range(1000):
        assert ours.verify(EMAIL, f"{(int(number) + 1 + guess) % 1_000_000:06}") is None
    assert ours.verify(EMAIL, number) == TOKEN


def test_a_copy_of_the_store_shows_address_number_and_token(ours: HomeMade, store: redis.Redis) -> None:
    """In clear."""
    ours.register(EMAIL, TOKEN)
    (key,) = store.keys()
    assert (text(key), TOKEN in text(store.get(key))) == (f"code:{EMAIL}", True)
