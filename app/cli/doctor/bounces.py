"""BOUNCE_ADDRESS: does its domain have the DNS records of a sender, and does its mail server take reports."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

import dns.exception
import dns.resolver

from app.cli.doctor import domain, mail
from app.cli.doctor.findings import Area, Finding
from app.config import Settings
from app.mail.connection import SmtpHost, connection_fault
from app.mail.replies import Blame, Reply, recipient_refused

BOUNCES = Area("bounces")

SMTP_PORT: Final = 25
"""Where the mail server of a domain listens (RFC 5321 §4.5.4.2)."""

TALK_S: Final = 5.0
"""For the whole conversation with it."""

FIND_OUT = "Send a mail from outside to that address, with +doctor before its @, and see whether it arrives."


def examine(
    settings: Settings,
    senders: Iterable[str],
    ask: dns.resolver.Resolver | None,
    *,
    port: int = SMTP_PORT,
    talk_s: float = TALK_S,
) -> Iterator[Finding]:
    """`senders`: their domains have been examined, and are not examined again. What cannot be asked, DNS or
    mail server, is told in a note. Sends nothing."""
    if not settings.bounce_address:
        return
    name = domain.of(settings.bounce_address)
    if "." not in name:
        yield BOUNCES.problem(
            f"BOUNCE_ADDRESS is at {name}, which is no domain: reports of mails do not come back.",
            "Set it to an address of a domain of yours.",
        )
    elif ask is None:
        yield BOUNCES.note(f"There is no DNS here; whether {name} takes reports is not known.")
    else:
        there = replace(
            settings, mail_port=port, mail_timeout_s=talk_s, mail_use_tls=False, mail_use_ssl=False
        )
        known = name in map(domain.of, senders)
        yield from _examine(there, name, ask, known=known)


def _examine(settings: Settings, name: str, ask: dns.resolver.Resolver, *, known: bool) -> Iterator[Finding]:
    """`settings`: for a conversation with its mail server. `known`: its DNS has been examined."""
    try:
        if not known:
            yield from domain.examine_envelope(name, ask)
        host = domain.exchange(name, ask)
    except dns.resolver.NXDOMAIN:
        if not known:
            yield BOUNCES.problem(
                f"The domain of BOUNCE_ADDRESS, {name}, does not exist: most servers refuse mails from it.",
                "Set it to an address of a domain of yours.",
            )
    except dns.exception.DNSException as error:
        yield BOUNCES.note(
            f"The DNS did not answer ({type(error).__name__}); whether {name} takes reports is not known."
        )
    else:
        if host:
            yield _way_back(replace(settings, mail_server=host))


def _way_back(there: Settings) -> Finding:
    """Asks the mail server of the domain as one that brings a report would: MAIL with the empty sender of
    reports (RFC 5321 §4.5.5), then RCPT."""
    host = there.mail_server
    try:
        smtp = SmtpHost(mail.way_to(there))
        try:
            sender = mail.reply(*smtp.mail(""))
            recipient = mail.reply(*smtp.rcpt(mail.envelope_sender(there)))
            smtp.rset()
        finally:
            smtp.wire.end(b"QUIT\r\n")
    except (OSError, ValueError) as error:
        return BOUNCES.note(
            f"The mail server {host} could not be asked whether it takes reports "
            f"({connection_fault(error).code}); many networks close port 25.",
            FIND_OUT,
        )
    return _told(host, sender, recipient)


def _told(host: str, sender: Reply, recipient: Reply) -> Finding:
    if sender.refused:
        return BOUNCES.note(
            f"The mail server {host} takes no mail from this machine ({sender.told('sender')}); whether it "
            "takes reports is not known.",
            FIND_OUT,
        )
    if recipient.accepted:
        return BOUNCES.ok(
            f"The mail server {host} takes reports for BOUNCE_ADDRESS, whatever comes behind a +."
        )
    refusal = recipient_refused(recipient)
    if refusal.blame is Blame.ADDRESS:
        return BOUNCES.problem(
            f"The mail server {host} refuses BOUNCE_ADDRESS with a tag ({refusal.code}): reports are lost.",
            "Make the address there, and let the server take what comes behind a + (Postfix: "
            "recipient_delimiter = +); see docs/bounces.md.",
        )
    if recipient.code >= 500:
        return BOUNCES.warning(
            f"The mail server {host} does not take a report for BOUNCE_ADDRESS ({refusal.code}).",
            "See its log: does it take mail for this domain, and from this machine?",
        )
    return BOUNCES.note(
        f"The mail server {host} puts reports off ({refusal.code}), as greylisting does.",
        "Ask again in some minutes.",
    )
