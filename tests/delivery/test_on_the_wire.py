"""What can happen while a mail is between DATA and the server's final reply."""

import os
import signal
import time
from pathlib import Path

import pytest
import redis

from app.domain.registration import Delivery
from app.repositories.users import Users
from app.services.delivery.worker import OLDEST_UNAWAITED_S
from tests.delivery.conftest import MAIL_TIMEOUT_S, Serve, Service
from tests.support.scan import contradictions, kinds
from tests.support.servers import Valkey, gunicorn
from tests.support.smtp import Conversation, Gate, ScriptedSmtp
from tests.support.values import there
from tests.support.waiting import wait_until

ADA = "ada.wire@example.com"
ASYNC = {"Prefer": "respond-async"}
QUEUED_LONG_S = OLDEST_UNAWAITED_S + 0.2
OWN = {"MAIL_TIMEOUT": str(MAIL_TIMEOUT_S), "MAIL_DEFAULT_SENDER": "no-reply@example.com"}


@pytest.fixture
def gate(smtp: ScriptedSmtp) -> Gate:
    """Holds the first mail after its content, before its 250; those that come later are accepted at once."""
    smtp.script["content"] = gate = Gate(holds=1)
    return gate


def assert_at_peace(service: Service, smtp: ScriptedSmtp, store: redis.Redis, mails: int) -> None:
    """So many mails have come, the last with the live number; nothing is owed and no lease is left."""
    service.wait_for_delivery(ADA, "sent")
    wait_until(lambda: kinds(store)["outbox"] == kinds(store)["sender"] == 0, 30)
    received = smtp.to(ADA)
    assert len(received) == mails
    assert received[-1].number == service.records.number_of(ADA)
    assert contradictions(store) == []


def test_a_number_that_is_replaced_meanwhile_is_followed_by_the_new_one(
    serve: Serve, smtp: ScriptedSmtp, gate: Gate, store: redis.Redis
) -> None:
    """Two mails, the live number last; the second registration answers 202 at once."""
    service = serve(smtp, mail_timeout_s=20.0)
    service.register(ADA, headers=ASYNC)
    gate.wait()
    answer, took = service.register(ADA)
    assert answer.status_code == 202
    assert took < 20
    gate.open()
    assert_at_peace(service, smtp, store, mails=2)


def test_of_many_replacements_only_the_last_is_mailed(
    serve: Serve, smtp: ScriptedSmtp, gate: Gate, store: redis.Redis
) -> None:
    """The sender follows what is live when it settles; those between were never live then."""
    service = serve(smtp)
    service.register(ADA, headers=ASYNC)
    gate.wait()
    for _ in range(5):
        assert service.register(ADA)[0].status_code == 202
    gate.open()
    assert_at_peace(service, smtp, store, mails=2)


@pytest.mark.parametrize("replacements", [0, 2])
def test_a_mail_that_waits_long_for_a_sender_is_looked_at_again_before_it_goes(
    serve: Serve, smtp: ScriptedSmtp, gate: Gate, store: redis.Redis, replacements: int
) -> None:
    """One connection, and somebody else's mail on it: an address that is erased meanwhile is not mailed, and
    of several registrations only the live one is."""
    service = serve(smtp, mail_connections=1)
    service.register("slow@example.com", headers=ASYNC)
    gate.wait()
    service.register(ADA, headers=ASYNC)
    for _ in range(replacements):
        service.register(ADA, headers=ASYNC)
    if not replacements:
        assert service.erase(ADA) == 204
    time.sleep(QUEUED_LONG_S)
    gate.open()
    service.wait_for_delivery("slow@example.com", "sent")
    if replacements:
        assert_at_peace(service, smtp, store, mails=1)
    else:
        wait_until(lambda: kinds(store)["outbox"] == kinds(store)["sender"] == 0, 30)
        service.register("last@example.com")
        assert smtp.to(ADA) == []


def test_an_address_that_was_erased_before_its_mail_can_be_registered_and_mailed_at_once(
    serve: Serve, smtp: ScriptedSmtp, gate: Gate, store: redis.Redis
) -> None:
    """The sender that finds it erased lets its lease go. It takes its jobs in order: once the last is mailed,
    it has looked at the erased one."""
    service = serve(smtp, mail_connections=1, mail_timeout_s=10.0)  # a lease lasts 25 s
    service.register("slow@example.com", headers=ASYNC)
    gate.wait()
    service.register(ADA, headers=ASYNC)
    service.register("last@example.com", headers=ASYNC)
    assert service.erase(ADA) == 204
    time.sleep(QUEUED_LONG_S)
    gate.open()
    service.wait_for_delivery("last@example.com", "sent")
    assert kinds(store)["sender"] == 0
    assert service.register(ADA)[0].status_code == 201
    assert_at_peace(service, smtp, store, mails=1)


def test_an_address_that_registers_during_every_mail_does_not_hold_a_sender_for_ever(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """After four mails in a row the relay goes on; in the end the live number is the last."""
    service = serve(smtp)
    registrations = 7

    async def registers_again(conversation: Conversation, usual: str) -> str:
        if len(smtp.contents) < registrations:
            await conversation.in_thread(lambda: service.register(ADA, headers=ASYNC))
        return usual

    smtp.script["content"] = registers_again
    service.register(ADA, headers=ASYNC)
    smtp.wait_for(ADA, registrations)
    assert_at_peace(service, smtp, store, mails=registrations)


def test_an_address_that_is_erased_meanwhile_stays_erased(
    serve: Serve, smtp: ScriptedSmtp, gate: Gate, store: redis.Redis
) -> None:
    """The mail may arrive; nothing is written and nothing is owed; the lease goes with its owner."""
    service = serve(smtp)
    service.register(ADA, headers=ASYNC)
    gate.wait()
    assert service.erase(ADA) == 204
    assert kinds(store)["sender"] == 1
    gate.open()
    wait_until(lambda: kinds(store)["sender"] == 0)
    assert service.look_up(ADA) == {}
    assert kinds(store)["user"] == kinds(store)["number"] == kinds(store)["outbox"] == 0
    assert len(smtp.to(ADA)) == 1


def test_the_mail_of_before_an_erasure_does_not_come_last(
    serve: Serve, smtp: ScriptedSmtp, gate: Gate, store: redis.Redis
) -> None:
    """Send slowly, erase, register: two processes, and the old mail is still the first."""
    service, other = serve(smtp), serve(smtp)
    service.register(ADA, headers=ASYNC)
    gate.wait()
    assert service.erase(ADA) == 204
    answer, _ = other.register(ADA)
    assert answer.status_code == 202
    gate.open()
    assert_at_peace(service, smtp, store, mails=2)


def test_a_refusal_of_a_replaced_number_does_not_erase_the_new_one(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """The first caller hears 422; the second was answered 202, so its registration stays, as failed."""
    service = serve(smtp)
    smtp.script["rcpt"] = gate = Gate("550 5.1.1 No such user")
    with service.in_thread(lambda: service.register(ADA)) as first:
        gate.wait()
        assert service.register(ADA)[0].status_code == 202
        gate.open()
        assert first.result(10)[0].status_code == 422
    user = service.wait_for_delivery(ADA, "failed")
    assert user["mail_error"] == "recipient 550 5.1.1"
    assert contradictions(store) == []


def test_a_mail_that_was_accepted_while_redis_was_away_is_settled_and_not_repeated(
    valkey: Valkey, smtp: ScriptedSmtp, gate: Gate
) -> None:
    """202, because only Redis knows for sure; the settling is repeated until it is back."""
    service = Service(valkey.url, smtp)
    try:
        with service.in_thread(lambda: service.register(ADA)) as first:
            gate.wait()
            valkey.kill()
            gate.open()
            assert first.result(10)[0].status_code == 202
        valkey.start()
        service.wait_for_delivery(ADA, "sent")
        assert len(smtp.contents) == 1
    finally:
        service.stop()


def test_a_refusal_that_redis_does_not_confirm_is_told_as_unknown(valkey: Valkey, smtp: ScriptedSmtp) -> None:
    """503, since the registration may stand; it is gone when Redis is back."""
    service = Service(valkey.url, smtp)
    smtp.script["rcpt"] = gate = Gate("550 5.1.1 No such user")
    try:
        with service.in_thread(lambda: service.register(ADA)) as first:
            gate.wait()
            valkey.kill()
            gate.open()
            answer = first.result(10)[0]
        assert (answer.status_code, answer.get_json()["type"]) == (503, "/problems/storage-unavailable")
        valkey.start()
        wait_until(lambda: service.delivery(ADA) == "gone", 30)
    finally:
        service.stop()


@pytest.mark.slow
def test_a_process_that_slept_beyond_its_lease_sends_nothing(
    tmp_path: Path, environment: dict[str, str], serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """Stopped between RCPT and the content, overtaken, woken: its old mail must not come last."""
    smtp.script["data"] = gate = Gate()
    own = {**environment, **OWN, "MAIL_PORT": str(smtp.port)}
    with gunicorn(tmp_path, own, "--workers", "1") as sleeper:
        sleeper.register(ADA, headers=ASYNC)
        gate.wait()
        (worker,) = sleeper.workers()
        os.kill(worker, signal.SIGSTOP)
        gate.open()
        other = serve(smtp)
        other.register(ADA)
        smtp.wait_for(ADA, 1, 15)
        os.kill(worker, signal.SIGCONT)
        wait_until(lambda: "mail_put_off" in sleeper.log, 30)
        assert_at_peace(other, smtp, store, mails=1)


@pytest.mark.slow
def test_the_mails_of_a_process_that_is_killed_are_sent_by_another_within_the_lease_time(
    tmp_path: Path,
    environment: dict[str, str],
    serve: Serve,
    smtp: ScriptedSmtp,
    store: redis.Redis,
) -> None:
    """kill -9 between DATA and 250: the mail comes again, with the same Message-ID."""
    own = {**environment, **OWN, "MAIL_PORT": str(smtp.port)}
    smtp.script["content"] = gate = Gate()
    other = serve(smtp)
    with gunicorn(tmp_path, own, "--workers", "1") as service:
        for number in range(4):
            service.register(f"killed{number}@example.com", headers=ASYNC)
        gate.wait(4)
        service.kill()
    gate.open()
    smtp.script.clear()
    lease_s = other.container.outbox.lease_ms / 1000
    wait_until(lambda: kinds(store)["outbox"] == 0, lease_s + 1, "all are mailed within the lease time")
    for number in range(4):
        mails = smtp.to(f"killed{number}@example.com")
        assert len(mails) <= 2
        assert len({mail.message_id for mail in mails}) == len({mail.number for mail in mails}) == 1


def test_a_registration_whose_process_died_before_the_send_is_mailed_when_its_lease_ends(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """200 registrations with leases of owners that never were: one mail each. (With a MAIL_TIMEOUT of 0.1 s a
    busy machine misses it, the breaker opens, and the mails come later.)"""
    service = serve(smtp)
    users: Users = service.container.users
    addresses = [f"orphan{number}@example.com" for number in range(200)]
    for address in addresses:
        service.store_without_sending(address)
    wait_until(lambda: kinds(store)["outbox"] == 0, 60, "all are mailed")
    assert sorted(mail.recipient for mail in smtp.mails) == sorted(addresses)
    assert kinds(store)["sender"] == 0
    assert there(users.find(service.records.keys(addresses[0]).user_id)).delivery is Delivery.SENT


def test_a_mail_is_not_begun_while_another_owner_has_the_lease(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """Erasing and registering again leaves the lease alone, whoever does it."""
    service = serve(smtp)
    service.store_without_sending(ADA)
    owner = store.get(service.records.keys(ADA).sender)
    service.erase(ADA)
    assert service.register(ADA)[0].status_code == 202
    assert store.get(service.records.keys(ADA).sender) == owner
    assert smtp.contents == []
    assert_at_peace(service, smtp, store, mails=1)
