"""The whole examination, and how it is told."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import dns.resolver

from app.cli.doctor import bounces, domain, events, mail, outbox, records, services, settings, store
from app.cli.doctor.findings import Finding, Level
from app.config import Settings
from app.directory.reading import read_disk
from app.errors import SettingsError
from app.mail.messages import faults

EXIT_CODES = {Level.OK: 0, Level.NOTE: 0, Level.WARNING: 1, Level.PROBLEM: 2}
"""For scripts: 0 all is well, 1 works but should not stay so, 2 does not work."""


def examine(resolver: dns.resolver.Resolver | None) -> Iterator[Finding]:
    """Everything, in the order in which it should be mended. Reads the environment."""
    try:
        found = Settings.from_environment()
    except SettingsError as error:
        yield from settings.wrong(error)
        return
    reading = read_disk(found, faults)
    if unusable := [*settings.unusable(found), *services.wrong(reading)]:
        yield from unusable
        return
    yield from settings.examine(found)
    yield from services.examine(reading)
    yield from store.examine(found)
    yield from records.examine(found)
    yield from outbox.examine(found)
    yield from mail.examine(found)
    yield from events.examine(reading)
    senders = services.senders(reading)
    yield from domain.examine(senders, resolver)
    yield from bounces.examine(found, senders, resolver)


def exit_code(findings: Sequence[Finding]) -> int:
    return max((EXIT_CODES[finding.level] for finding in findings), default=0)


def as_text(finding: Finding) -> str:
    """Lines for a person: what is, and indented what to do."""
    says = f"{finding.area:9}{finding.level:8} {finding.says}"
    return f"{says}\n{'':18}-> {finding.cure}" if finding.cure else says


def summary(findings: Sequence[Finding]) -> str:
    """The last line for a person."""
    levels = [finding.level for finding in findings]
    return f"{levels.count(Level.PROBLEM)} problems, {levels.count(Level.WARNING)} warnings"


def as_json(findings: Sequence[Finding]) -> str:
    """One object for scripts."""
    told = {"exit_code": exit_code(findings), "findings": [asdict(finding) for finding in findings]}
    return json.dumps(told, indent=2)
