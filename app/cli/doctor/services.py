"""The services: what is wrong in SERVICES_FILE, and what is allowed and worth a look."""

from collections.abc import Iterable, Iterator
from typing import Final

from app.cli.doctor.findings import Area, Finding
from app.directory.reading import Reading
from app.domain.service import DEFAULT, Service

SERVICES = Area("services")

SHOWN: Final = 5
"""At most so many services are named; the others are counted."""


def wrong(reading: Reading) -> Iterator[Finding]:
    """What stops the start, or a reload from taking effect."""
    for each in reading.wrong:
        line = f", line {each.line}," if each.line else ""
        yield SERVICES.problem(
            f"{each.where}{line} is wrong: the service does not start, and a reload changes nothing.",
            f"{each.message} `flask --app wsgi services check` shows the whole file.",
        )


def examine(reading: Reading) -> Iterator[Finding]:
    """The services of the file. `default` is examined with the settings."""
    found = [service for service in reading.services if service.id != DEFAULT]
    if not found:
        return
    yield SERVICES.ok(f"SERVICES_FILE can be read: {told(found)}.")
    mailing = [service for service in found if not service.test]
    yield from _limits(mailing)
    if silent := [service for service in found if service.test]:
        yield SERVICES.note(
            f"Nothing is mailed for test services: {told(silent)}.",
            "Real people need a table without `test`.",
        )
    if alone := [service for service in mailing if not service.support]:
        yield SERVICES.note(
            f"Mails name nobody to ask for: {told(alone)}.",
            "Set `support` there, or SERVICE_SUPPORT for all.",
        )


def _limits(mailing: list[Service]) -> Iterator[Finding]:
    if guessed := [service for service in mailing if not service.verify_limit.amount]:
        yield SERVICES.warning(
            f"Guesses at a number are not limited in time for: {told(guessed)}.",
            'Set `verify_limit` there, for example to "5/15 minutes".',
        )
    if flooded := [service for service in mailing if not service.address_limit.amount]:
        yield SERVICES.warning(
            f"Only MAILBOX_LIMIT keeps a mailbox from being flooded by: {told(flooded)}.",
            'Set `address_limit` there, for example to "10/hour".',
        )


def senders(reading: Reading) -> list[str]:
    """The senders of all services that mail; that of `default` only where somebody may call it."""
    called = {caller.service.id for caller in reading.keys.values()}
    if not reading.closed:
        called.add(DEFAULT)
    return [service.sender for service in reading.services if service.id in called and not service.test]


def told(found: Iterable[Service]) -> str:
    """Their names, of many the first."""
    names = [service.id for service in found]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
