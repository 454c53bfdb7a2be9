"""Handing in the number: the token once, every failure alike, and guessing that ends."""

import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import redis
from stdnum import damm

from tests.api.conftest import Api, at_once, wrong
from tests.support.records import Records
from tests.support.scan import kinds
from tests.support.servers import ROOT, MailServer, Valkey, gunicorn, settings_for
from tests.support.waiting import wait_until


def test_the_right_number_brings_the_token_once_and_consumes_the_registration(
    api: Api, email: str, store: redis.Redis
) -> None:
    """200 with id, address and token; afterwards nothing of the registration is left."""
    registered = api.register(email, "basket 3 \u2026 \U0001f600")
    answer = api.verify(email, api.number_of(email))
    assert answer.status_code == 200
    assert answer.json() == {
        "id": registered.json()["id"],
        "email": email,
        "token": "basket 3 \u2026 \U0001f600",
    }
    assert api.verify(email, api.number_of(email)).status_code == 403
    assert kinds(store)["user"] == kinds(store)["number"] == kinds(store)["outbox"] == 0


@pytest.mark.parametrize(
    "typed",
    [
        lambda number: f" {number[:4]}-{number[4:8]}  {number[8:]} ",
        lambda number: f"\u200f{number[:3]}\u202f{number[3:6]}\u2011{number[6:]}.\r\n",
        lambda number: "".join(chr(0xFF10 + int(digit)) for digit in number),
        lambda number: "".join(chr(0x660 + int(digit)) for digit in number),
    ],
    ids=["spaces and hyphens", "pasted", "full-width digits", "Arabic digits"],
)
def test_a_number_is_taken_as_people_type_and_paste_it(
    api: Api, email: str, typed: Callable[[str], str]
) -> None:
    """They copy what they see, and what they do not see comes along."""
    number = api.registered(email)
    assert api.verify(email, typed(number)).status_code == 200


def test_an_address_is_the_same_however_it_is_written(api: Api, email: str) -> None:
    """Upper case is no other person."""
    number = api.registered(email)
    assert api.verify(email.upper(), number).json()["email"] == email


@pytest.mark.parametrize("rounds", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_of_a_hundred_clients_with_the_right_number_exactly_one_gets_the_token(
    api: Api, email: str, rounds: int
) -> None:
    """All ask at the same moment; the others hear what everybody hears."""
    for round_ in range(rounds):
        number = api.registered(email, f"token {round_}")
        answers = at_once(100, partial(api.verify, email, number))
        assert Counter(answer.status_code for answer in answers) == {200: 1, 403: 99}
        (winner,) = [answer.json() for answer in answers if answer.status_code == 200]
        assert winner["token"] == f"token {round_}"


def test_all_failures_have_the_same_status_and_body(api: Api, email: str, store: redis.Redis) -> None:
    """Wrong, unknown, used, replaced, expired: only the request id differs."""
    number = api.registered(email)
    answers = [api.verify(email, wrong(number)), api.verify(f"un{email}", number)]
    newer = api.registered(email)
    answers.append(api.verify(email, number))
    assert api.verify(email, newer).status_code == 200
    answers.append(api.verify(email, newer))
    expiring = api.registered(email)
    for key in list(store.scan_iter("*:user:*")) + list(store.scan_iter("*:number:*")):
        store.pexpire(key, 1)
    wait_until(lambda: not list(store.scan_iter("*:user:*")))
    answers.append(api.verify(email, expiring))
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.content for answer in answers}) == 1
    assert len({tuple(sorted(answer.headers)) for answer in answers}) == 1
    assert answers[0].json()["type"] == "/problems/verification-failed"
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == len(answers)


@pytest.mark.parametrize(
    "change",
    [
        lambda number: number[:-1] + str((int(number[-1]) + 1) % 10),
        lambda number: number[:-1],
        lambda number: number + "0",
        lambda number: "",
        lambda number: "twelve digit",
        lambda number: " - ",
        lambda number: number * 1000,
        lambda number: number.replace(number[0], "O"),
    ],
    ids=["check digit", "short", "long", "empty", "letters", "separators", "endless", "a letter"],
)
def test_a_mistyped_number_is_told_so_and_costs_no_try(
    keyed: Api, email: str, change: Callable[[str], str]
) -> None:
    """Ten typing errors, and the right number is still taken (five wrong ones would have been too many)."""
    number = keyed.registered(email)
    for _ in range(10):
        answer = keyed.verify(email, change(number))
        assert answer.status_code == 422
        assert answer.json()["type"] == "/problems/mistyped-number"
    assert keyed.verify(email, number).status_code == 200


def test_a_number_with_a_page_of_spaces_is_mistyped(api: Api, email: str) -> None:
    """Nobody pastes that much: to read 60 KB of it costs as much as thirty registrations."""
    number = api.registered(email)
    for padding in ("\u200b" * 10_000, " " * 60_000, "\u0660" * 10_000):
        assert api.verify(email, number + padding).json()["type"] == "/problems/mistyped-number"
    assert api.verify(email, f"{number:^200}").status_code == 200


def test_a_leading_zero_is_a_wrong_number_and_not_a_mistyped_one(api: Api, email: str) -> None:
    """Mistyped means length or check digit, and nothing else tells what numbers look like."""
    body = "0" + api.registered(email)[1:-1]
    assert api.verify(email, body + str(damm.calc_check_digit(body))).status_code == 403


def test_five_wrong_numbers_use_up_the_budget_of_an_address_known_or_unknown(keyed: Api, email: str) -> None:
    """Then 429 with Retry-After, for the right number too: the same whether somebody is registered."""
    number = keyed.registered(email)
    for address in (email, f"un{email}"):
        for other in range(1, 6):
            assert keyed.verify(address, wrong(number, other)).status_code == 403
        answer = keyed.verify(address, number)
        assert answer.status_code == 429
        assert answer.json()["type"] == "/problems/too-many-attempts"
        assert 895 <= int(answer.headers["Retry-After"]) <= 900


def test_a_new_registration_does_not_refill_the_budget(keyed: Api, email: str, store: redis.Redis) -> None:
    """The budget belongs to the address; replacing, erasing and using up change nothing about it."""
    number = keyed.registered(email)
    assert keyed.verify(email, wrong(number)).status_code == 403
    number = keyed.registered(email)
    assert keyed.verify(email, number).status_code == 200
    assert keyed.verify(email, number).status_code == 403, "a used number costs a try"
    user_id = keyed.register(email).json()["id"]
    assert keyed.call("DELETE", f"/api/users/{user_id}").status_code == 204
    for _ in range(3):
        assert keyed.verify(email, number).status_code == 403
    number = keyed.registered(email)
    assert keyed.verify(email, number).status_code == 429
    (tries,) = store.scan_iter("*:tries:*")
    store.delete(tries)
    assert keyed.verify(email, number).status_code == 200, "the window has ended"


def test_the_right_number_does_not_refill_the_budget(keyed: Api, email: str) -> None:
    """Four wrong, one right, one wrong: the next is too many."""
    number = keyed.registered(email)
    for other in range(1, 5):
        assert keyed.verify(email, wrong(number, other)).status_code == 403
    assert keyed.verify(email, number).status_code == 200
    assert keyed.verify(email, number).status_code == 403
    assert keyed.verify(email, number).status_code == 429


def test_the_hundredth_wrong_number_in_a_row_erases_the_registration(
    api: Api, email: str, store: redis.Redis
) -> None:
    """99 leave it usable; a new registration starts at none."""
    number = api.registered(email)
    for other in range(1, 100):
        assert api.verify(email, wrong(number, other)).status_code == 403
    number = api.registered(email)
    for other in range(1, 100):
        assert api.verify(email, wrong(number, other)).status_code == 403
    assert kinds(store)["user"] == 1
    assert api.verify(email, wrong(number, 100)).status_code == 403
    assert kinds(store)["user"] == kinds(store)["number"] == kinds(store)["outbox"] == 0
    assert api.verify(email, number).status_code == 403


def test_a_hundred_guesses_at_once_are_all_counted(keyed: Api, email: str, store: redis.Redis) -> None:
    """No race lets a guesser have more tries than the budget."""
    number = keyed.registered(email)
    answers = at_once(100, lambda: keyed.verify(email, wrong(number)))
    assert Counter(answer.status_code for answer in answers) == {403: 5, 429: 95}
    (tries,) = store.scan_iter("*:tries:*")
    assert store.get(tries) == b"5"


def test_a_record_sealed_with_a_key_that_is_not_here_is_left_alone(
    tmp_path: Path, valkey: Valkey, mail_server: MailServer, email: str
) -> None:
    """While a new SECRET_KEY is rolled out, the token is not consumed by a process that cannot open it."""
    common = settings_for(valkey, mail_server) | {"INDEX_KEY": "i" * 32}
    with gunicorn(tmp_path, {**common, "SECRET_KEY": "n" * 32}) as server:
        new = Api(server, mail_server)
        number = new.registered(email)
        with gunicorn(tmp_path, {**common, "SECRET_KEY": "o" * 32}) as other:
            old = Api(other, mail_server)
            user_id = Records(valkey.client(), index_key="i" * 32).keys(email).user_id
            for answer in (old.verify(email, number), old.call("GET", f"/api/users/{user_id}")):
                assert (answer.status_code, answer.json()["type"]) == (
                    503,
                    "/problems/storage-unavailable",
                )
                assert "a key that this process lacks" in answer.json()["detail"]
            assert "a key that this process lacks" in other.log
            settings = {**os.environ, **common, "SECRET_KEY": "o" * 32}
            command = [sys.executable, "-m", "flask", "--app", "wsgi", "users", "show", email]
            shown = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True)
            assert shown.returncode == 1
            assert "a key that this process lacks" in shown.stderr
            assert "Redis does not answer" not in shown.stderr
        assert new.verify(email, number).status_code == 200


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_failures_take_the_same_time(
    tmp_path: Path, valkey_server: Valkey, mail_server: MailServer, store: redis.Redis
) -> None:
    """The medians of 2,000 interleaved timings each lie within a tenth of each other.

    The registration of the wrong number is made anew before a hundred have erased it.
    """
    environment = {
        "REDIS_URL": valkey_server.url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(mail_server.port),
        "ADDRESS_LIMIT": "",
        "MAILBOX_LIMIT": "",
        "VERIFY_LIMIT": "1000000/hour",
        "WEB_CONCURRENCY": "1",
    }
    with gunicorn(tmp_path, environment) as server:
        api = Api(server, mail_server)
        used, expired = api.registered("used@example.com"), api.registered("past@example.com")
        api.verify("used@example.com", used)
        for key in list(store.scan_iter("*:user:*")) + list(store.scan_iter("*:number:*")):
            store.pexpire(key, 1)
        timings: dict[str, list[float]] = {name: [] for name in ("live", "none", "used", "past")}
        for turn in range(2000):
            if turn % 90 == 0:
                live = wrong(api.registered("live@example.com"))
            numbers = {"live": live, "none": used, "used": used, "past": expired}
            for name, number in numbers.items():
                began = time.perf_counter()
                answer = api.verify(f"{name}@example.com", number)
                timings[name].append(time.perf_counter() - began)
                assert answer.status_code == 403
    medians = {name: statistics.median(found) * 1000 for name, found in timings.items()}
    print({name: f"{median:.3f} ms" for name, median in medians.items()})  # noqa: T201 - what was measured
    assert max(medians.values()) <= 1.1 * min(medians.values()), medians
