"""The fault table: what a mail server can do wrong, what the caller hears, what is kept, what arrives."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from tests.delivery.conftest import MAIL_TIMEOUT_S, Service
from tests.delivery.faults import ADA, LOGIN, PATIENT, assert_arrives
from tests.support.authority import Authority
from tests.support.scan import kinds
from tests.support.servers import Valkey
from tests.support.smtp import Behaviour, ScriptedSmtp, cut, say, silence
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Fault:
    """A row: the script of the server, and the error that a look-up shows (empty: not compared)."""

    script: Mapping[str, Behaviour]
    error: str
    server: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    waits: bool = False  # the answer comes with the time-out
    operators: bool = False  # readiness keeps saying it


PUT_OFF = {
    "accept and silence": Fault({"connect": silence}, "greeting timeout", waits=True),
    "421 greeting": Fault({"connect": say("421 4.3.2 Shutting down")}, "connect 421"),
    "554 greeting": Fault({"connect": say("554 5.7.1 Go away")}, "connect 554"),
    "silence after EHLO": Fault({"ehlo": silence}, "connect timeout", waits=True),
    "421 to MAIL": Fault({"mail": say("421 4.3.2 Shutting down")}, "sender 421 4.3.2"),
    "450 to RCPT": Fault({"rcpt": say(f"450 4.2.1 <{ADA}> busy")}, "recipient 450 4.2.1"),
    "mailbox full": Fault({"rcpt": say(f"552 5.2.2 <{ADA}> full")}, "recipient 552 5.2.2"),
    "our sender is refused at RCPT": Fault(
        {"rcpt": say("550 5.1.8 Bad sender")}, "recipient 550 5.1.8", operators=True
    ),
    "relaying denied": Fault(
        {"rcpt": say(f"550 5.7.1 <{ADA}> Relaying denied")}, "recipient 550 5.7.1", operators=True
    ),
    "421 to RCPT": Fault({"rcpt": say("421 4.7.0 Slow down")}, "recipient 421 4.7.0"),
    "silence after RCPT": Fault({"rcpt": silence}, "recipient timeout", waits=True),
    "451 to DATA": Fault({"data": say("451 4.3.0 Not now")}, "data 451 4.3.0"),
    "552 after DATA": Fault({"content": say("552 5.3.4 Too big")}, "content 552 5.3.4"),
    "451 after DATA": Fault({"content": say("451 4.3.0 Disk full")}, "content 451 4.3.0"),
    "421 after DATA": Fault({"content": say("421 4.3.2 Shutting down")}, "content 421 4.3.2"),
    "cut after DATA": Fault({"content": cut}, "content broken"),
    "cut after DATA, no PIPELINING": Fault({"content": cut}, "content broken", {"pipelining": False}),
    "login refused": Fault({"auth": say("535 5.7.8 No")}, "login 535", {"login": "PLAIN LOGIN"}, LOGIN),
    "login not offered": Fault({}, "login not offered", {"login": ""}, LOGIN),
    "no login that we know": Fault({}, "login not offered", {"login": "GSSAPI"}, LOGIN),
    "STARTTLS not offered": Fault({}, "starttls not offered", {}, {"mail_use_tls": True}),
    "550 with a colon after 5.7.1": Fault(
        {"rcpt": say("550 5.7.1: Relay access denied")}, "recipient 550 5.7.1", operators=True
    ),
    "550 with 5.7.1 in its first line only": Fault(
        {"rcpt": say("550-5.7.1 Relaying denied\r\n550 see our policy")},
        "recipient 550 5.7.1",
        operators=True,
    ),
    "sender refused": Fault({"mail": say("550 5.7.1 No")}, "sender 550 5.7.1", operators=True),
    "sender refused, no PIPELINING": Fault(
        {"mail": say("550 No")}, "sender 550", {"pipelining": False}, operators=True
    ),
    "nonsense": Fault({"rcpt": say("what?")}, "recipient broken"),
}


@pytest.fixture(scope="module")
def played(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[dict[str, Future[None]]]:
    """Every row has a mail server, a service and a database of its own; eight are played at a time."""
    valkey = Valkey(tmp_path_factory.mktemp("faults"), save="", databases=len(PUT_OFF))
    with ThreadPoolExecutor(8) as pool:
        yield {
            name: pool.submit(_play, name, valkey, database, authority)
            for database, name in enumerate(PUT_OFF)
        }
    valkey.stop()


@pytest.mark.parametrize("name", PUT_OFF)
def test_a_fault_that_is_not_the_addresses_is_put_off_and_the_mail_arrives_in_the_end(
    name: str, played: dict[str, Future[None]]
) -> None:
    """202; the registration and its outbox entry stay with the reason; one mail when the server is well."""
    played[name].result(60)


def _play(name: str, valkey: Valkey, database: int, authority: Authority) -> None:
    fault = PUT_OFF[name]
    url = f"redis://127.0.0.1:{valkey.port}/{database}"
    smtp = ScriptedSmtp(**fault.server)
    smtp.script.update(fault.script)
    settings = {**({} if fault.waits else PATIENT), **fault.settings}
    service = Service(url, smtp, mail_ca_file=str(authority.ca_file), **settings)
    store = redis.Redis.from_url(url)
    try:
        answer, took = service.register(ADA)
        assert (answer.status_code, answer.get_json()["delivery"]) == (202, "pending"), answer.text
        assert took >= MAIL_TIMEOUT_S if fault.waits else took < PATIENT["mail_timeout_s"]
        wait_until(lambda: service.look_up(ADA).get("mail_error") == fault.error, 5, fault.error)
        assert service.delivery(ADA) == "pending"
        assert kinds(store)["outbox"] == kinds(store)["user"] == 1
        assert smtp.mails == []
        assert service.smtp_state in ((fault.error,) if fault.operators else (fault.error, "ok"))

        smtp.script.clear()
        _cure(smtp, fault, authority)
        assert_arrives(service, smtp, store)
        assert service.smtp_state == "ok"
    finally:
        service.stop()
        store.close()
        smtp.close()


def _cure(smtp: ScriptedSmtp, fault: Fault, authority: Authority) -> None:
    if fault.error == "login not offered":
        smtp.login = "PLAIN LOGIN"
    if fault.error == "starttls not offered":
        smtp.tls = authority.server()
