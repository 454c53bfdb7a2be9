"""`doctor` finds what is missing in the DNS of the sender, and names the cure for each."""

import socket

import pytest

from app.cli.doctor import domain
from app.cli.doctor.findings import Finding, Level
from tests.operate.doctor import SENDER, assert_found, worst
from tests.support.names import NameServer, Zone

GOOD: Zone = {
    "mail.example.com": {"MX": ["10 mx.example.com."], "TXT": ['"other"', '"v=spf1 include:x.example -all"']},
    "_dmarc.example.com": {"TXT": ['"v=DMARC1; p=reject"']},
}


def looked_up(zone: Zone, sender: str = SENDER) -> list[Finding]:
    server = NameServer(zone)
    found = list(domain.examine([sender], server.resolver()))
    server.stop()
    return found


def test_a_domain_as_it_should_be_has_nothing_to_complain_about() -> None:
    """SPF of its own, DMARC of the domain above; that DKIM cannot be known is said."""
    found = looked_up(GOOD)
    assert worst(found) == []
    assert "DKIM" in found[-1].says


DOMAIN_FAULTS: list[tuple[Zone, Level, str, str]] = [
    (
        {
            "mail.example.com": {"MX": ["10 mx.example.com."]},
            "_dmarc.example.com": GOOD["_dmarc.example.com"],
        },
        Level.WARNING,
        "has no SPF record",
        "v=spf1",
    ),
    (
        {**GOOD, "mail.example.com": {"A": ["192.0.2.1"], "TXT": ['"v=spf1 a -all"', '"v=spf1 mx -all"']}},
        Level.PROBLEM,
        "2 SPF records",
        "Join them",
    ),
    (
        {**GOOD, "mail.example.com": {"A": ["192.0.2.1"], "TXT": ['"v=spf1 +all"']}},
        Level.WARNING,
        "lets everybody send",
        "-all",
    ),
    (
        {"mail.example.com": GOOD["mail.example.com"]},
        Level.WARNING,
        "has no DMARC record",
        "_dmarc.mail.example.com",
    ),
    (
        {**GOOD, "mail.example.com": {**GOOD["mail.example.com"], "MX": ["0 ."]}},
        Level.PROBLEM,
        "takes no mail",
        "MX record",
    ),
    (
        {**GOOD, "mail.example.com": {"TXT": GOOD["mail.example.com"]["TXT"]}},
        Level.WARNING,
        "bounces are lost",
        "MX record",
    ),
    ({}, Level.PROBLEM, "does not exist", "MAIL_DEFAULT_SENDER"),
]


@pytest.mark.parametrize(("zone", "level", "says", "cure"), DOMAIN_FAULTS, ids=[f[2] for f in DOMAIN_FAULTS])
def test_a_fault_planted_in_the_dns_is_found(zone: Zone, level: Level, says: str, cure: str) -> None:
    """One fault, one finding, with its cure."""
    assert_found(looked_up(zone), level, says, cure)


def test_a_sender_without_a_domain_is_found() -> None:
    """What the default comes to on a machine that nobody named."""
    assert_found(
        looked_up(GOOD, "no-reply@localhost"), Level.WARNING, "which is no domain", "Set MAIL_DEFAULT_SENDER"
    )


def test_a_dns_that_does_not_answer_is_a_note() -> None:
    """A container without DNS is no fault of the domain."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        resolver = NameServer({}).resolver()
        resolver.port, resolver.lifetime = silent.getsockname()[1], 0.2
        found = list(domain.examine([SENDER], resolver))
    assert [finding.level for finding in found] == [Level.NOTE]
    assert [f.level for f in domain.examine([SENDER], None)] == [Level.NOTE]


def test_a_dns_that_does_not_answer_is_not_asked_for_every_domain() -> None:
    """A hundred services with domains of their own would be eight minutes, in the middle of the night."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        resolver = NameServer({}).resolver()
        resolver.port, resolver.lifetime = silent.getsockname()[1], 0.1
        found = list(domain.examine([f"a@{name}.example" for name in "abcdef"], resolver))
    assert [finding.level for finding in found] == [Level.NOTE] * 3
    assert "a.example" in found[0].says
    assert "b.example" in found[1].says
    assert "4 more" in found[2].says


def test_every_domain_is_looked_at_once() -> None:
    """Each with its own findings; that DKIM cannot be known is said once."""
    server = NameServer(GOOD)
    senders = [SENDER, "Other <other@Mail.example.com>", "x@missing.example", "x@localhost"]
    found = list(domain.examine(senders, server.resolver()))
    server.stop()
    assert [finding.says.split(":")[0] for finding in worst(found)] == [
        "The domain missing.example does not exist",
        "Mails come from localhost, which is no domain",
    ]
    assert sum("SPF record" in finding.says for finding in found) == 1
    assert sum("DKIM" in finding.says for finding in found) == 1
