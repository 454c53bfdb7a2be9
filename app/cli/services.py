"""`flask --app wsgi services check [FILE]`: what SERVICES_FILE says, and what is wrong in it."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import click

from app.cli.common import Commands
from app.config import Settings
from app.directory.reading import Reading, read_disk
from app.domain.service import Budget, Endpoint
from app.errors import SettingsError
from app.mail.messages import faults

services = Commands("services", help="The services of SERVICES_FILE: who may register people here.")

HEAD = ("service", "name", "sender", "locale", "address", "verify", "client", "ttl", "test", "events", "keys")


@services.command()
@click.argument("file", required=False, type=click.Path())
def check(file: str | None) -> None:
    """Show the services of FILE, or of SERVICES_FILE, and everything that is wrong in it, with its line.

    Looks at the files alone: needs no Redis, and changes nothing. What a table leaves out is shown as the
    environment has it. Exit code 1: something is wrong.
    """
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    if not (file or settings.services_file):
        raise click.ClickException("SERVICES_FILE is not set: nothing to check")
    reading = read_disk(replace(settings, services_file=file) if file else settings, faults)
    for line in _columns([HEAD, *_rows(reading)]):
        click.echo(line)
    if reading.wrong:
        click.echo(f"\n{reading.error}", err=True)
        sys.exit(1)


def _rows(reading: Reading) -> Iterator[tuple[str, ...]]:
    keys = Counter(caller.service.id for caller in reading.keys.values())
    without_keys = "closed" if reading.closed else "open"  # only `default` may be so
    for service in reading.services:
        yield (
            service.id,
            service.name,
            service.sender,
            service.locale,
            _limits(service.address_limit),
            _limits(service.verify_limit),
            _limits(*service.client_limit),
            str(service.ttl_s),
            "test" if service.test else "-",
            _host(service.events),
            str(keys[service.id] or without_keys),
        )


def _host(events: Endpoint | None) -> str:
    """Where events go. What follows the host in the URL may be a secret."""
    return (urlsplit(events.url).hostname if events else None) or "-"


def _limits(*budgets: Budget) -> str:
    """`10/3600s`: so many in so many seconds."""
    return ",".join(f"{each.amount}/{each.window_s}s" for each in budgets if each.amount) or "-"


def _columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
