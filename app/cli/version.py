"""`flask --app wsgi version`: which release this is."""

import click

from app.cli.common import Command
from app.version import VERSION


@click.command(cls=Command)
def version() -> None:
    """Tell the version. Needs neither settings nor Redis."""
    click.echo(VERSION)
