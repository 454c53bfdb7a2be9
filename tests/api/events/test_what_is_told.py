"""Which events there are, what is in them, and in which order they come."""

import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

import pytest
import redis
from standardwebhooks import Webhook

from tests.api.conftest import named
from tests.api.events.conftest import (
    ASYNC,
    BUSY,
    EXPIRED_WITHIN_S,
    MACHINE_S,
    SHORT_TTL_S,
    UNKNOWN,
    Comes,
    Person,
    assert_in_order,
)
from tests.operate.test_commands import run
from tests.support.bounces import INDEX
from tests.support.faults.redis import everything
from tests.support.receivers import Receipt, Receiver, Reply, secrets_of
from tests.support.servers import Gunicorn, Received
from tests.support.smtp import Gate, ScriptedSmtp
from tests.support.tenants import key_of
from tests.support.waiting import wait_until

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@pytest.mark.parametrize("service", ["shop", "rehearsal"])
def test_an_event_says_what_happened_to_which_registration_and_when(
    comes: Comes, receiver: Receiver, service: str
) -> None:
    """Nothing else is in it. A test service is told its events as any other."""
    ada = comes(service)
    ada.registers()
    receiver.wait_for(ada.id, "sent")
    ada.verifies()
    sent, verified = receiver.wait_for(ada.id, "sent", "verified")
    (created_at,) = ada.created_at
    for receipt, kind in ((sent, "registration.sent"), (verified, "registration.verified")):
        moment = receipt.event["timestamp"]
        data = {"id": ada.id, "created_at": created_at}
        assert receipt.event == {"type": kind, "timestamp": moment, "data": data}
        assert MOMENT.fullmatch(moment)
        assert moment >= created_at
    assert sent.event["timestamp"] <= verified.event["timestamp"]


def test_an_event_is_sent_as_standard_webhooks_says(ada: Person, receiver: Receiver) -> None:
    """An id that is the event's, the time of the attempt in whole seconds, a signature for each secret."""
    ada.registers()
    ada.verifies()
    receipts = receiver.wait_for(ada.id, "sent", "verified")
    for receipt in receipts:
        assert (receipt.method, receipt.service) == ("POST", "shop")
        assert receipt.headers["content-type"] == "application/json"
        assert re.fullmatch(r"[^.\s]{1,255}", receipt.event_id)
        assert abs(int(receipt.headers["webhook-timestamp"]) - receipt.at) < MACHINE_S
        assert not {"authorization", "cookie"} & set(receipt.headers)
    assert len({receipt.event_id for receipt in receipts}) == 2


def test_each_secret_signs_and_neither_needs_the_other(ada: Person, receiver: Receiver) -> None:
    """So that they can be rotated. With one more space in the body, neither verifies."""
    ada.registers()
    (receipt,) = receiver.wait_for(ada.id, "sent")
    signatures = receipt.headers["webhook-signature"].split(" ")
    assert [each.partition(",")[0] for each in signatures] == ["v1", "v1"]
    verified = [[verifies(receipt, secret, one) for one in signatures] for secret in secrets_of("shop", 2)]
    assert sorted(verified) == [[False, True], [True, False]]
    tampered = receipt._replace(body=receipt.body + " ")
    assert not any(verifies(tampered, secret, signatures[0]) for secret in secrets_of("shop", 2))


def verifies(receipt: Receipt, secret: str, signature: str) -> bool:
    """As the reference library judges it."""
    try:
        Webhook(secret).verify(receipt.body, receipt.headers | {"webhook-signature": signature})
    except Exception:  # noqa: BLE001 - it raises more than it says
        return False
    return True


@pytest.mark.parametrize("kind", ["bounced", "complained"])
def test_what_came_back_is_told_once(ada: Person, receiver: Receiver, kind: str) -> None:
    """Though the mail provider reports it again; the number is still good."""
    ada.registers()
    for _ in range(2):
        ada.reported(kind)
    ada.verifies()
    told = receiver.wait_for(ada.id, "sent", kind, "verified")
    assert {receipt.created_at for receipt in told} == {*ada.created_at}


def test_a_report_that_changes_nothing_is_not_told(ada: Person, receiver: Receiver) -> None:
    """Of a delivery, or of a registration that was replaced."""
    ada.registers()
    ada.reported("delivered")
    ada.registers()
    ada.reported("bounced", mail=0)
    ada.verifies()
    receiver.wait_for(ada.id, "sent", "sent", "verified")


def test_a_mail_that_is_refused_after_the_answer_has_failed(
    ada: Person, receiver: Receiver, smtp: ScriptedSmtp
) -> None:
    """Nobody was told 422."""
    smtp.script["rcpt"] = UNKNOWN
    ada.registers(202, headers=ASYNC)
    (failed,) = receiver.wait_for(ada.id, "failed")
    assert failed.created_at == ada.created_at[0]


def test_a_mail_that_the_operator_gives_up_has_failed_until_it_is_sent(
    ada: Person, receiver: Receiver, smtp: ScriptedSmtp, settings: dict[str, str]
) -> None:
    """What a command did is told by the service that runs."""
    smtp.script["rcpt"] = BUSY
    ada.registers(202)
    wait_until(lambda: run(settings, "outbox", "drop", ada.id).returncode == 0, 30, "it is dropped")
    receiver.wait_for(ada.id, "failed")
    smtp.script.clear()
    assert run(settings, "outbox", "retry", ada.id).returncode == 0
    told = receiver.wait_for(ada.id, "failed", "sent", timeout_s=40)
    assert {receipt.created_at for receipt in told} == {*ada.created_at}


def test_nothing_is_told_of_what_was_refused_replaced_or_erased(
    ada: Person, receiver: Receiver, smtp: ScriptedSmtp
) -> None:
    """Nor of the 422: whoever registered was told by the answer."""
    smtp.script["rcpt"] = UNKNOWN
    ada.registers(422)
    smtp.script["rcpt"] = BUSY
    ada.registers(202)
    smtp.script.clear()
    ada.registers()
    ada.registers()
    ada.erases()
    ada.registers()
    ada.verifies()
    told = receiver.wait_for(ada.id, "sent", "sent", "sent", "verified")
    assert [receipt.created_at for receipt in told] == [*ada.created_at[1:], ada.created_at[-1]]


def test_a_service_without_a_url_is_told_nothing(comes: Comes, receiver: Receiver) -> None:
    """Whatever others are told."""
    eve, ada = comes("quiet"), comes("shop")
    for person in (eve, ada):
        person.registers()
        person.verifies()
    receiver.wait_for(ada.id, "sent", "verified")
    assert receiver.attempts("quiet") == receiver.attempts(user_id=eve.id) == []


def test_a_request_that_is_repeated_is_not_told_again(ada: Person, receiver: Receiver) -> None:
    """Its Idempotency-Key says that it was carried out before."""
    for _ in range(2):
        ada.registers(headers=named("order-1"))
    number = ada.verifies(headers=named("order-2"))
    assert ada.api.verify(ada.email, number, headers=named("order-2")).status_code == 200
    ada.registers()
    receiver.wait_for(ada.id, "sent", "verified", "sent")


def test_an_event_names_nobody(ada: Person, receiver: Receiver, telling: Gunicorn) -> None:
    """No address, number, token, key or secret is in what is sent, nor in the log of it."""
    ada.registers(token="the-token-of-ada")
    ada.reported("complained")
    number = ada.verifies()
    told = receiver.wait_for(ada.id, "sent", "complained", "verified")
    secret = {
        *(ada.email, ada.email.partition("@")[2], "the-token-of-ada", ada.tag(), key_of("shop"), INDEX),
        *(number, f"{number[:3]} {number[3:6]} {number[6:]}", f"{number[:3]}-{number[3:6]}-{number[6:]}"),
        *(each.removeprefix("whsec_") for each in secrets_of("shop", 2)),
    }
    sent = "\n".join(f"{each.path} {each.headers} {each.body}" for each in told)
    assert [each for each in secret if each.lower() in sent.lower()] == []
    log = telling.log
    assert [each for each in secret if each in log] == []


def test_what_waits_to_be_told_names_nobody(
    comes: Comes, receiver: Receiver, store: redis.Redis, other: str
) -> None:
    """When the registration is gone, nothing is left of address, token and number."""
    receiver.says(other, then=Reply(500))
    ada = comes(other, "a-rare-name")
    ada.registers(token="a-rare-token")
    number = ada.verifies()
    left = b"\n".join(key + b" " + (dump or b"") for key, (dump, _) in everything(store).items())
    assert ada.id.encode() in left, "its events wait"
    assert [each for each in ("a-rare", number) if each.encode() in left] == []
    receiver.says(other)
    receiver.wait_for(ada.id, "sent", "verified", timeout_s=40)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_end_of_a_number_is_told_within_a_minute(
    comes: Comes, receiver: Receiver, store: redis.Redis
) -> None:
    """Also where its mail never went out; not where it was verified, erased or replaced before. Of a service
    without a URL nothing outlives the record."""
    unread, unmailed, verified, erased, replaced, again, untold = (
        comes(*who) for who in [("brief",), ("brief", "deferred"), *[("brief",)] * 4, ("hush",)]
    )
    for person in (unread, verified, erased, replaced, again, untold):
        person.registers()
    unmailed.registers(202)
    verified.verifies()
    erased.erases()
    replaced.registers()
    wait_until(lambda: not list(store.scan_iter("*:user:*")), SHORT_TTL_S + 10, "all have ended")
    again.registers()
    expected = {
        unread: ["sent", "expired"],
        unmailed: ["expired"],
        verified: ["sent", "verified"],
        erased: ["sent"],
        replaced: ["sent", "sent", "expired"],
        again: ["sent", "expired", "sent", "expired"],
        untold: [],
    }

    def told() -> list[list[str]]:
        return [[receipt.kind for receipt in receiver.taken(user_id=each.id)] for each in expected]

    with suppress(AssertionError):  # what there is says more
        wait_until(lambda: count(told()) >= count(expected.values()), 2 * EXPIRED_WITHIN_S)
    assert told() == [*expected.values()]
    for person in (unread, unmailed, replaced, again):
        assert receiver.taken(user_id=person.id)[-1].created_at == person.created_at[-1]
    for receipt in receiver.taken("brief"):
        if receipt.kind == "expired":
            ended = datetime.fromisoformat(receipt.created_at).timestamp() + SHORT_TTL_S
            assert 0 <= receipt.at - ended < EXPIRED_WITHIN_S + MACHINE_S
    left = b"\n".join(key + b" " + (dump or b"") for key, (dump, _) in everything(store).items())
    assert [person.email for person in expected if person.id.encode() in left] == []


def count(told: Iterable[list[str]]) -> int:
    return sum(map(len, told))


def test_events_of_an_address_come_in_order_over_all_its_registrations(
    comes: Comes, receiver: Receiver, other: str
) -> None:
    """Also when all have waited for the first."""
    receiver.says(other, Reply(500))
    ada = comes(other)
    ada.registers()
    ada.verifies()
    ada.registers()
    ada.resends()
    ada.registers()
    ada.verifies()
    ada.registers()
    told = receiver.wait_for(
        ada.id, "sent", "verified", "sent", "sent", "sent", "verified", "sent", timeout_s=30
    )
    first, second, third, fourth = ada.created_at
    assert [receipt.created_at for receipt in told] == [first] * 2 + [second] * 2 + [third] * 2 + [fourth]
    assert_in_order(receiver.attempts(user_id=ada.id))


@pytest.mark.parametrize("is_cut", [False, True])
def test_sent_comes_before_verified_also_where_the_person_is_faster_than_the_mail_server(
    ada: Person, receiver: Receiver, smtp: ScriptedSmtp, is_cut: bool
) -> None:
    """Who has the number had the mail, also while the server has not said that it took it, and if it never
    does."""
    smtp.script["content"] = gate = Gate(holds=1)
    ada.registers(202, headers=ASYNC)
    gate.wait()
    number = Received("", "", gate.waiting[0].content).number
    assert ada.api.verify(ada.email, number).status_code == 200
    if is_cut:
        smtp.stop()
        smtp.start()
    gate.open()
    receiver.wait_for(ada.id, "sent", "verified")
    smtp.script.clear()
    ada.registers(202, headers=ASYNC)  # whoever was cut off may still have the lease
    told = receiver.wait_for(ada.id, "sent", "verified", "sent", timeout_s=40)
    assert [receipt.created_at for receipt in told] == [*[ada.created_at[0]] * 2, ada.created_at[1]]
