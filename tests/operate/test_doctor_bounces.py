"""`doctor` finds what keeps reports of mails from coming back to BOUNCE_ADDRESS."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.cli.doctor import bounces, mail
from app.cli.doctor.findings import Finding, Level
from app.config import Settings
from tests.operate.doctor import SENDER, assert_found, smtp, worst
from tests.operate.test_doctor_mail import Particular
from tests.support.names import NameServer, Zone
from tests.support.servers import free_port
from tests.support.smtp import Behaviour, ScriptedSmtp, say, silence
from tests.support.waiting import wait_until

SETTINGS = Settings(mail_default_sender=SENDER, bounce_address="bounce@back.example.com")
SPF = ['"v=spf1 include:x.example -all"']
GOOD: Zone = {"back.example.com": {"MX": ["20 nowhere.invalid.", "10 localhost."], "TXT": SPF}}


@pytest.fixture
def server() -> Iterator[ScriptedSmtp]:
    found = ScriptedSmtp()
    yield found
    found.close()


def looked_at(zone: Zone, port: int, sender: str = SENDER, talk_s: float = 2.0) -> list[Finding]:
    names = NameServer(zone)
    found = list(bounces.examine(SETTINGS, [sender], names.resolver(), port=port, talk_s=talk_s))
    names.stop()
    return found


def test_an_address_as_it_should_be_has_nothing_to_complain_about(server: ScriptedSmtp) -> None:
    """Its first mail server is asked, as politely as by one that brings a report, and gets no mail."""
    found = looked_at(GOOD, server.port)
    assert [finding.level for finding in found] == [Level.OK, Level.OK]
    assert "localhost takes reports" in found[-1].says
    politely = {"ehlo": 1, "mail": 1, "rcpt": 1, "rset": 1, "quit": 1}
    wait_until(lambda: server.heard == politely, 10, "the server has heard all")
    assert server.mails == []


def test_without_the_setting_nothing_is_said() -> None:
    """Nobody waits for reports."""
    assert list(bounces.examine(Settings(mail_default_sender=SENDER), [SENDER], None)) == []


DOMAIN_FAULTS: list[tuple[Zone, Level, str, str]] = [
    ({}, Level.PROBLEM, "does not exist", "an address of a domain of yours"),
    ({"back.example.com": {"MX": ["0 ."], "TXT": SPF}}, Level.PROBLEM, "takes no mail", "MX record"),
    ({"back.example.com": {"TXT": SPF}}, Level.WARNING, "bounces are lost", "MX record"),
    ({"back.example.com": {"MX": ["10 localhost."]}}, Level.WARNING, "has no SPF record", "v=spf1"),
]


@pytest.mark.parametrize(("zone", "level", "says", "cure"), DOMAIN_FAULTS, ids=[f[2] for f in DOMAIN_FAULTS])
def test_a_fault_planted_in_the_dns_is_found(
    server: ScriptedSmtp, zone: Zone, level: Level, says: str, cure: str
) -> None:
    """One fault, one finding, with its cure."""
    assert_found(looked_at(zone, server.port), level, says, cure)


def test_a_domain_that_mails_come_from_is_not_examined_twice(server: ScriptedSmtp) -> None:
    """Its findings stand with the senders'; only the mail server is asked."""
    found = looked_at({"back.example.com": {"MX": ["10 localhost."]}}, server.port, "x@Back.example.com")
    assert ["takes reports" in finding.says for finding in found] == [True]
    assert looked_at({}, server.port, "x@back.example.com") == []


REFUSALS: list[tuple[str, str, Level, str, str]] = [
    ("rcpt", "550 5.1.1 No such user", Level.PROBLEM, "reports are lost", "recipient_delimiter"),
    ("rcpt", "550 No such user", Level.PROBLEM, "reports are lost", "recipient_delimiter"),
    ("rcpt", "554 5.7.1 Relay access denied", Level.WARNING, "recipient 554 5.7.1", "mail for this domain"),
    ("rcpt", "450 4.2.0 Greylisted", Level.NOTE, "puts reports off (recipient 450 4.2.0)", "in some minutes"),
    (
        "mail",
        "550 5.7.1 Your address is listed",
        Level.NOTE,
        "from this machine (sender 550 5.7.1)",
        "+doctor",
    ),
    ("connect", "554 5.7.1 Not you", Level.NOTE, "connect 554", "+doctor"),
]


@pytest.mark.parametrize(
    ("stage", "reply", "level", "says", "cure"), REFUSALS, ids=[f"{f[0]} {f[1]}" for f in REFUSALS]
)
def test_what_the_mail_server_refuses_is_told(
    server: ScriptedSmtp, stage: str, reply: str, level: Level, says: str, cure: str
) -> None:
    """The address itself is a problem; what may be this machine's fault is a note."""
    server.script[stage] = say(reply)
    found = looked_at(GOOD, server.port)[-1]
    assert (found.level, says in found.says, cure in found.cure) == (level, True, True), found
    assert not {"Greylisted", "Relay", "listed"} & set(found.says.split())


@pytest.mark.parametrize("behaviour", [silence, say("hello")], ids=["silent", "no SMTP"])
def test_a_mail_server_that_cannot_be_asked_is_a_note(server: ScriptedSmtp, behaviour: Behaviour) -> None:
    """Many networks close port 25: no fault of the address. No server is waited for long."""
    server.script["connect"] = behaviour
    for port in (server.port, free_port()):
        found = looked_at(GOOD, port, talk_s=0.5)
        assert worst(found) == []
        assert (found[-1].level, "many networks close port 25" in found[-1].says) == (Level.NOTE, True)


def test_where_nobody_can_be_asked_a_note_says_so() -> None:
    """No DNS, or one that does not answer. A name without a dot is wrong in any case."""
    (found,) = bounces.examine(SETTINGS, [SENDER], None)
    assert (found.level, "no DNS here" in found.says) == (Level.NOTE, True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        names = NameServer({})
        resolver = names.resolver()
        names.stop()
        resolver.port, resolver.lifetime = silent.getsockname()[1], 0.2
        (found,) = bounces.examine(SETTINGS, [SENDER], resolver)
    assert (found.level, "did not answer" in found.says) == (Level.NOTE, True)
    local = Settings(mail_default_sender=SENDER, bounce_address="bounce@localhost")
    assert_found(bounces.examine(local, [SENDER], None), Level.PROBLEM, "is no domain", "a domain of yours")


def test_our_mail_server_is_asked_for_the_sender_that_mails_have() -> None:
    """Where it is refused, the setting is named."""
    with smtp(Particular("550 5.7.1 Not you")) as settings:
        found = mail.examine(replace(settings, bounce_address="bounce@acme.example"))
        assert_found(found, Level.PROBLEM, "refuses our sender (550)", "Set BOUNCE_ADDRESS")
