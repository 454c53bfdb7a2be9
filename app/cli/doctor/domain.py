"""The domains we send from: what receivers look up before they believe a mail (SPF, DKIM, DMARC)."""

from collections.abc import Iterable, Iterator
from email.utils import parseaddr
from typing import Any, Final

import dns.exception
import dns.resolver

from app.cli.doctor.findings import Area, Finding, Level

DOMAIN = Area("domain")

LOOK_UP_S: Final = 5.0

SILENT: Final = 2
"""After so many domains in a row without an answer it is the DNS that is silent, and is asked no more."""

SET_SENDER: Final = "Set MAIL_DEFAULT_SENDER, or `sender` of the service in SERVICES_FILE,"


def resolver() -> dns.resolver.Resolver | None:
    """The resolver of this machine; None where it has none."""
    try:
        found = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        return None
    found.lifetime = LOOK_UP_S
    return found


def of(sender: str) -> str:
    """The domain of an address, or of `Name <address>`."""
    return parseaddr(sender)[1].rpartition("@")[2].lower()


def examine(senders: Iterable[str], ask: dns.resolver.Resolver | None) -> Iterator[Finding]:
    """What the DNS says of each domain that mails come from. Where it does not answer, a note says so."""
    domains = dict.fromkeys(map(of, senders))
    answered, silent, left = False, 0, 0
    for domain in domains:
        if "." not in domain:
            yield DOMAIN.warning(
                f"Mails come from {domain}, which is no domain: most servers refuse them.",
                f"{SET_SENDER} to an address of a domain of yours.",
            )
        elif ask is None:
            yield DOMAIN.note(f"There is no DNS here; SPF and DMARC of {domain} were not examined.")
        elif silent == SILENT:
            left += 1
        else:
            found, in_time = _examine(domain, ask)
            answered = answered or all(finding.level is not Level.NOTE for finding in found)
            silent = 0 if in_time else silent + 1
            yield from found
    if left:
        yield DOMAIN.note(f"{left} more domains were not examined, as the DNS does not answer.")
    if answered:
        yield DOMAIN.note(
            "Whether mails are signed (DKIM) cannot be seen from here: only a mail shows its selector.",
            "Send one to yourself and look for dkim=pass in its Authentication-Results.",
        )


def examine_envelope(domain: str, ask: dns.resolver.Resolver) -> Iterator[Finding]:
    """Without DMARC, which is about the domain in `From`: this one stands in the envelope alone. Raises
    DNSException."""
    yield from _receives(domain, ask)
    yield _spf(domain, ask)


def exchange(domain: str, ask: dns.resolver.Resolver) -> str:
    """The first server for mails to this domain (RFC 5321 §5.1); empty where it takes none. Raises
    DNSException."""
    answers = sorted(_records(domain, "MX", ask), key=lambda answer: int(answer.preference))
    if answers:
        return str(answers[0].exchange).rstrip(".")
    return domain if _records(domain, "A", ask) or _records(domain, "AAAA", ask) else ""


def _examine(domain: str, ask: dns.resolver.Resolver) -> tuple[list[Finding], bool]:
    """And whether the DNS has answered in time."""
    found: list[Finding] = []
    try:
        found += examine_envelope(domain, ask)
        found.append(_dmarc(domain, ask))
    except dns.resolver.NXDOMAIN:
        found.append(
            DOMAIN.problem(
                f"The domain {domain} does not exist: most servers refuse mails from it.",
                f"{SET_SENDER} to an address of a domain of yours.",
            )
        )
    except dns.exception.DNSException as error:
        why = type(error).__name__
        found.append(
            DOMAIN.note(f"The DNS did not answer ({why}); SPF and DMARC of {domain} were not examined.")
        )
        return found, not isinstance(error, dns.exception.Timeout)
    return found, True


def _receives(domain: str, ask: dns.resolver.Resolver) -> Iterator[Finding]:
    """Bounces need a way back, and many receivers ask whether there is one."""
    exchanges = [str(answer.exchange) for answer in _records(domain, "MX", ask)]
    if exchanges == ["."]:
        yield DOMAIN.problem(
            f"{domain} says that it takes no mail (null MX, RFC 7505), so receivers refuse it.",
            "Give it an MX record, or send from another domain.",
        )
    elif not exchanges and not _records(domain, "A", ask) and not _records(domain, "AAAA", ask):
        yield DOMAIN.warning(
            f"{domain} has neither MX nor address: bounces are lost and some receivers refuse.",
            "Give it an MX record.",
        )


def _spf(domain: str, ask: dns.resolver.Resolver) -> Finding:
    policies = [text for text in _texts(domain, ask) if text.lower().split(" ")[0] == "v=spf1"]
    if not policies:
        return DOMAIN.warning(
            f"{domain} has no SPF record: mails from it are easily taken for spam.",
            f'Publish a TXT record at {domain}: "v=spf1 include:<what your provider says> -all".',
        )
    if len(policies) > 1:
        return DOMAIN.problem(
            f"{domain} has {len(policies)} SPF records; then none of them counts (RFC 7208).",
            "Join them into one.",
        )
    if {"+all", "all"} & set(policies[0].lower().split()):
        return DOMAIN.warning(
            f"The SPF record of {domain} lets everybody send in its name.", "End it with -all or ~all."
        )
    return DOMAIN.ok(f"{domain} has an SPF record; whether it names your mail server, its provider knows.")


def _dmarc(domain: str, ask: dns.resolver.Resolver) -> Finding:
    """The record of the domain, or of the nearest domain above that has one (RFC 7489)."""
    labels = domain.split(".")
    for depth in range(len(labels) - 1):
        place = ".".join(labels[depth:])
        policies = [text for text in _texts(f"_dmarc.{place}", ask) if text.lower().startswith("v=dmarc1")]
        if len(policies) > 1:
            return DOMAIN.problem(
                f"_dmarc.{place} has {len(policies)} records; then none counts.", "Keep one."
            )
        if policies and "p=none" in policies[0].lower().replace(" ", ""):
            return DOMAIN.note(
                f"The DMARC policy of {place} is none: forged mails in your name are delivered.",
                "Change it to p=quarantine or p=reject once the reports look right.",
            )
        if policies:
            return DOMAIN.ok(f"{place} has a DMARC policy.")
    return DOMAIN.warning(
        f"{domain} has no DMARC record; large receivers ask for one.",
        f'Publish a TXT record at _dmarc.{domain}: "v=DMARC1; p=quarantine; rua=mailto:<you>".',
    )


def _texts(name: str, ask: dns.resolver.Resolver) -> list[str]:
    try:
        return [b"".join(answer.strings).decode(errors="replace") for answer in _records(name, "TXT", ask)]
    except dns.resolver.NXDOMAIN:
        return []


def _records(name: str, kind: str, ask: dns.resolver.Resolver) -> list[Any]:
    try:
        return list(ask.resolve(name, kind, search=False))
    except dns.resolver.NoAnswer:
        return []
