"""Mail servers that refuse, are slow, drop connections or have no good certificate: one mail in the end."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from app.repositories.keys import SEALED
from tests.delivery.conftest import MAIL_TIMEOUT_S, Serve
from tests.delivery.faults import ADA, LOGIN, PATIENT, assert_arrives
from tests.support.authority import Authority
from tests.support.records import Records
from tests.support.scan import contradictions, kinds
from tests.support.servers import Valkey, gunicorn
from tests.support.smtp import Behaviour, Conversation, Cut, ScriptedSmtp, late, say, silence
from tests.support.values import text
from tests.support.waiting import wait_until


@pytest.mark.parametrize(
    "reply",
    ["550 5.1.1 No such user", "550 No such user", "553 Bad name", "551 Not here", "550 5.2.1 Disabled",
     "556 5.1.10 Null MX", "550-5.1.1 No such\r\n550 5.1.1 user"],
)  # fmt: skip
def test_an_address_that_is_refused_for_good_is_told_at_once_and_nothing_stays(
    reply: str, serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """422 undeliverable-address; the next mail goes over the same connection."""
    service = serve(smtp, **PATIENT)
    smtp.script["rcpt"] = say(reply)
    answer, took = service.register(ADA)
    assert (answer.status_code, answer.get_json()["type"]) == (422, "/problems/undeliverable-address")
    assert took < PATIENT["mail_timeout_s"]
    assert set(kinds(store)) <= {"keycheck", "ready", "relay", "mailbox"}
    assert service.smtp_state == "ok"
    smtp.script.clear()
    assert service.register("bob.fault@example.com")[0].status_code == 201
    assert smtp.connections == 1


def test_an_address_is_refused_for_good_where_data_is_accepted_all_the_same(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """RFC 2920 §3.1: with PIPELINING a server may say 354 although no recipient was accepted. No empty mail
    is sent then; the next mail goes over another connection."""
    service = serve(smtp)
    smtp.script.update(rcpt=say("550 5.1.1 No"), data=say("354 Go"), content=say("554 5.5.1 No recipients"))
    assert service.register(ADA)[0].status_code == 422
    smtp.script.clear()
    assert service.register(ADA)[0].status_code == 201
    assert (smtp.connections, len(smtp.contents)) == (2, 1)


def test_an_address_that_is_refused_is_told_although_the_reset_is_not_answered(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """422: the connection is given up before the request is."""
    smtp.script.update(rcpt=say("550 5.1.1 No such user"), rset=silence)
    answer, _ = serve(smtp, mail_timeout_s=4.0).register(ADA)
    assert (answer.status_code, answer.get_json()["type"]) == (422, "/problems/undeliverable-address")
    assert kinds(store)["user"] == 0


def test_a_refusal_after_the_answer_marks_the_mail_as_failed_and_erases_nothing(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """The caller was told 202; GET says `failed` and why."""
    service = serve(smtp)
    smtp.script["rcpt"] = say("450 4.2.1 Later")
    assert service.register(ADA)[0].status_code == 202
    smtp.script["rcpt"] = say("550 5.1.1 No such user")
    user = service.wait_for_delivery(ADA, "failed")
    assert user["mail_error"] == "recipient 550 5.1.1"
    assert user["mail_attempts"] == 2
    assert kinds(store)["outbox"] == 0
    assert contradictions(store) == []


def test_a_refusal_that_nobody_waited_for_erases_nothing(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """`respond-async`: sent under the registration's own lease, and the caller has its 202 already."""
    service = serve(smtp)
    smtp.script["rcpt"] = say("550 5.1.1 No such user")
    answer, _ = service.register(ADA, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    user = service.wait_for_delivery(ADA, "failed")
    assert (user["mail_error"], user["mail_attempts"]) == ("recipient 550 5.1.1", 1)
    assert kinds(store)["sender"] == kinds(store)["outbox"] == 0
    assert contradictions(store) == []


def test_connection_refused_is_answered_at_once_and_the_mail_arrives_when_the_server_is_up(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """202 without waiting; found out within a few seconds that the server is back."""
    service = serve(smtp, **PATIENT)
    smtp.stop()
    answer, took = service.register(ADA)
    assert answer.status_code == 202
    assert took < PATIENT["mail_timeout_s"]
    assert service.look_up(ADA)["mail_error"] == "connect refused"
    smtp.start()
    assert_arrives(service, smtp, store)


def test_a_final_reply_that_comes_late_is_waited_for_and_no_mail_is_repeated(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """202 after the time-out; one mail, although its 250 comes after the lease would have ended."""
    service = serve(smtp)
    lease_s = service.container.outbox.lease_ms / 1000
    smtp.script["content"] = late(lease_s + 1.5)
    answer, took = service.register(ADA)
    assert answer.status_code == 202
    assert took >= MAIL_TIMEOUT_S
    assert_arrives(service, smtp, store)
    assert len(smtp.contents) == 1


@pytest.mark.slow
def test_a_final_reply_after_12_seconds_gives_one_mail(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """With the default time-out of 10 s."""
    service = serve(smtp, mail_timeout_s=10.0)
    smtp.script["content"] = late(12)
    answer, took = service.register(ADA)
    assert answer.status_code == 202
    assert took >= 10
    assert_arrives(service, smtp, store)
    assert len(smtp.contents) == 1


@pytest.mark.parametrize("step_s", [0.3, pytest.param(5.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("pipelining", [True, False])
def test_a_server_that_is_slow_at_every_step_gets_each_mail_through(
    step_s: float, pipelining: bool, serve: Serve, store: redis.Redis
) -> None:
    """202 after the time-out, and one mail: no step takes longer than a step may."""
    smtp = ScriptedSmtp(pipelining=pipelining)
    try:
        smtp.script.update(
            {stage: late(step_s) for stage in ("connect", "ehlo", "mail", "rcpt", "data", "content")}
        )
        timeout_s = 3 * step_s  # connecting is one step: greeting and EHLO
        service = serve(smtp, mail_timeout_s=timeout_s)
        answer, took = service.register(ADA)
        assert answer.status_code == 202
        assert took >= timeout_s
        service.wait_for_delivery(ADA, "sent", 60)
        assert_arrives(service, smtp, store)
        assert smtp.violations == []
    finally:
        smtp.close()


def test_a_server_that_drops_every_second_connection_gets_every_mail_once(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """201 every time: a connection that breaks before the mail was handed over is replaced at once."""

    async def drop_even(conversation: Conversation, usual: str) -> str:
        if conversation.serial % 2 == 0:
            raise Cut
        return usual

    async def one_mail_each(conversation: Conversation, usual: str) -> str:
        return "421 4.3.2 Enough" if conversation.mails else usual

    service = serve(smtp, **PATIENT)
    for stage in ("connect", "rcpt"):
        smtp.script = {stage: drop_even, "noop": one_mail_each, "mail": one_mail_each}
        for number in range(5):
            address = f"{stage}{number}@example.com"
            assert service.register(address)[0].status_code == 201
            smtp.hang_up()
            assert_arrives(service, smtp, store, address)


def test_a_server_that_closes_idle_connections_costs_nobody_a_wait(serve: Serve, smtp: ScriptedSmtp) -> None:
    """Closed between two mails, with and without a 421; closed just as the next mail begins: 201."""
    service = serve(smtp, **PATIENT)
    assert service.register("idle0@example.com")[0].status_code == 201
    smtp.hang_up()
    wait_until(lambda: not smtp.open_connections)
    assert service.register("idle1@example.com")[0].status_code == 201

    async def reluctant(conversation: Conversation, usual: str) -> str:
        if conversation.mails:
            raise Cut
        return usual

    smtp.script["mail"] = reluctant
    assert service.register("idle2@example.com")[0].status_code == 201

    async def polite(conversation: Conversation, usual: str) -> str:
        return "421 4.4.2 Idle too long" if conversation.mails else usual

    smtp.script["mail"] = polite
    assert service.register("idle3@example.com")[0].status_code == 201
    assert (smtp.connections, len(smtp.mails)) == (4, 4)


def test_a_server_that_takes_few_connections_gets_every_mail_over_those(
    serve: Serve, smtp: ScriptedSmtp, store: redis.Redis
) -> None:
    """20 at once, 8 connections wanted, 3 to be had: 201 for all, and nobody calls the server down."""

    async def three(_: Conversation, usual: str) -> str:
        return usual if len(smtp.open_connections) <= 3 else "421 4.7.0 Too many connections"

    smtp.script.update(connect=three, content=late(0.05))
    service = serve(smtp, mail_connections=8, **PATIENT)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: service.register(f"crowd{number}@example.com"), range(20)))
    assert {answer.status_code for answer, _ in answers} == {201}
    assert service.smtp_state == "ok"
    assert len(smtp.mails) == 20
    assert kinds(store)["outbox"] == kinds(store)["sender"] == 0


def test_a_server_that_knows_no_ehlo_gets_helo(serve: Serve, store: redis.Redis) -> None:
    """RFC 5321 §3.2; without EHLO there is no PIPELINING."""
    smtp = ScriptedSmtp(ehlo=False, pipelining=False)
    try:
        service = serve(smtp)
        assert service.register(ADA)[0].status_code == 201
        assert smtp.heard["helo"] == 1
        assert smtp.violations == []
    finally:
        smtp.close()


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "starttls"])
@pytest.mark.parametrize("wrong", ["expired", "wrong name", "unknown authority"])
def test_a_certificate_that_does_not_hold_is_the_operators_fault(
    wrong: str, implicit: bool, serve: Serve, store: redis.Redis, authority: Authority
) -> None:
    """No mail and no password goes to such a server; 202, said on /readyz; with a good one it arrives."""
    name = "mail.example.org" if wrong == "wrong name" else "127.0.0.1"
    smtp = ScriptedSmtp(
        tls=authority.server(name, expired=wrong == "expired"), implicit=implicit, login="PLAIN LOGIN"
    )
    try:
        trusted = {} if wrong == "unknown authority" else {"mail_ca_file": str(authority.ca_file)}
        settings = {"mail_use_ssl": implicit, "mail_use_tls": not implicit, **LOGIN}
        service = serve(smtp, **settings, **trusted, **PATIENT)
        answer, took = service.register(ADA)
        assert answer.status_code == 202
        assert took < PATIENT["mail_timeout_s"]
        assert service.look_up(ADA)["mail_error"] == "certificate refused"
        assert service.smtp_state == "certificate refused"
        assert smtp.heard["auth"] == smtp.heard["mail"] == 0
        if wrong == "unknown authority":
            return
        smtp.tls = authority.server()
        smtp.stop()
        smtp.start()
        assert_arrives(service, smtp, store)
    finally:
        smtp.close()


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "starttls"])
def test_a_private_authority_is_trusted_where_it_is_named(
    implicit: bool, serve: Serve, authority: Authority
) -> None:
    """MAIL_CA_FILE, with login, over STARTTLS and implicit TLS; the connection is kept."""
    smtp = ScriptedSmtp(tls=authority.server(), implicit=implicit, login="PLAIN LOGIN")
    try:
        service = serve(
            smtp,
            mail_use_ssl=implicit,
            mail_use_tls=not implicit,
            mail_ca_file=str(authority.ca_file),
            **LOGIN,
        )
        for number in range(3):
            assert service.register(f"tls{number}@example.com")[0].status_code == 201
        assert smtp.heard["auth"] == smtp.connections == 1
    finally:
        smtp.close()


QUOTING = ("connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "content")


def test_nothing_that_the_server_says_is_logged_counted_or_stored(
    tmp_path: Path, valkey_server: Valkey, store: redis.Redis, authority: Authority
) -> None:
    """Servers quote the address, the password, the whole mail: what is kept is the stage and the code."""
    smtp = ScriptedSmtp(tls=authority.server(), login="PLAIN")
    settings = {
        "REDIS_URL": valkey_server.url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(smtp.port),
        "MAIL_USE_TLS": "true",
        "MAIL_CA_FILE": str(authority.ca_file),
        "MAIL_USERNAME": "us3rname",
        "MAIL_PASSWORD": "pa55word",
        "MAIL_CONNECTIONS": "1",
        "WEB_CONCURRENCY": "1",
        "ADDRESS_LIMIT": "",
        "MAILBOX_LIMIT": "",
    }

    def quote(code: str) -> Behaviour:
        async def behave(conversation: Conversation, _: str) -> str:
            said = conversation.content.decode().replace("\r\n", f"\r\n{code[:3]}-")
            return f"{code[:3]}-{said}\r\n{code} <{conversation.recipient}> pa55word gr3ylisted by mx17"

        return behave

    records, errors, kept, numbers = Records(store), set(), set(), []
    try:
        with gunicorn(tmp_path, settings) as service:
            for stage, code in itertools.product(QUOTING, ("450 4.2.1", "550 5.7.1", "299")):
                smtp.script[stage] = quote(code)
                smtp.hang_up()
                address = f"s3cret.{stage}.{code[:3]}@example.com"
                assert service.register(address, token="t0ken").status_code == 202
                numbers.append(records.number_of(address))
                keys = records.keys(address)
                path = f"{service.url}/api/users/{keys.user_id}"
                errors.add(str(service.http.get(path).json()["mail_error"]))
                record = store.hgetall(keys.user).items()
                kept |= {text(value) for name, value in record if text(name) not in SEALED}
                assert service.http.delete(path).status_code == 204  # not tried again
                smtp.script.clear()
                assert service.register("well@example.com").status_code == 201
            scraped = service.http.get(f"{service.url}/metrics").text
            log = service.log
    finally:
        smtp.close()
    assert log.count('"mail_') >= len(QUOTING) * 3
    assert len(errors) > 2 * len(QUOTING)
    for place in (log, scraped, *kept, *errors):
        for word in ("s3cret", "pa55word", "us3rname", "gr3ylisted", "mx17", "t0ken", *numbers):
            assert word not in place
