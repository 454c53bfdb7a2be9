"""A shard whose numbers run out, with the real script and an injected source of randomness."""

import random
from collections.abc import Iterator

import pytest
import redis
from flask import Flask
from werkzeug.test import TestResponse

from app import create_app
from app.config import Settings
from app.domain.service import Budget
from tests.support.records import Records
from tests.support.scan import contradictions
from tests.support.servers import MailServer, Valkey

SPACE = 16
"""Numbers that the injected source can draw in each shard; the real one draws 900,000 and more."""

SHARD, OTHER_SHARD = 123, 321


@pytest.fixture
def app(valkey_server: Valkey, store: redis.Redis, mail_server: MailServer) -> Iterator[Flask]:
    """The service in this process, drawing from a small space only."""
    settings = Settings(
        redis_url=valkey_server.url,
        mail_server="127.0.0.1",
        mail_port=mail_server.port,
        mail_default_sender="no-reply@example.com",
        address_limit=Budget(),
    )
    app = create_app(settings, randbelow=lambda _: random.Random().randrange(SPACE))
    yield app
    app.extensions["cedula"].stop()


def register(app: Flask, address: str) -> TestResponse:
    return app.test_client().post("/api/users", json={"email": address, "token": f"token of {address}"})


def assert_exhausted(answer: TestResponse) -> None:
    """503, and the problem that says what the operator has to do."""
    assert answer.status_code == 503, answer.text
    assert answer.content_type == "application/problem+json"
    assert answer.json is not None
    assert answer.json["type"] == "/problems/number-space-exhausted"
    assert answer.headers["Retry-After"].isdigit()


def test_the_last_number_of_a_shard_is_found_and_then_everybody_keeps_what_they_have(
    app: Flask, store: redis.Redis, mail_server: MailServer
) -> None:
    """Full but for one: found. Full: new and repeated registrations fail and harm nobody."""
    records = Records(store)
    *holders, last, newcomer = records.addresses_in_shard(SHARD, SPACE + 1)
    for address in holders:
        assert register(app, address).status_code == 201
    assert register(app, last).status_code == 201  # the one number that was left

    held = {address: records.of(address) for address in (*holders, last)}
    assert len({stored.number for stored in held.values() if stored}) == SPACE
    assert_exhausted(register(app, newcomer))
    for address in held:
        assert_exhausted(register(app, address))

    assert {address: records.of(address) for address in held} == held
    assert records.of(newcomer) is None
    assert [mail_server.box.to(address)[-1].number for address in held] == [
        stored.number for stored in held.values() if stored
    ]
    assert contradictions(store) == []

    (neighbour,) = records.addresses_in_shard(OTHER_SHARD, 1)
    assert register(app, neighbour).status_code == 201


def test_a_number_that_becomes_free_is_given_out_again(app: Flask, store: redis.Redis) -> None:
    """An exhausted shard recovers by itself when somebody is erased."""
    records = Records(store)
    *holders, newcomer = records.addresses_in_shard(SHARD, SPACE + 1)
    for address in holders:
        assert register(app, address).status_code == 201
    assert_exhausted(register(app, newcomer))

    freed = records.number_of(holders[0])
    assert app.test_client().delete(f"/api/users/{records.keys(holders[0]).user_id}").status_code == 204
    assert register(app, newcomer).status_code == 201
    assert records.number_of(newcomer) == freed
