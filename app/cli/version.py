"""`flask --app wsgi version`: which release this is."""

import click

from app.version import VERSION


@click.command()
def version() -> None:
    """Tell the version. Needs neither settings nor Redis."""
    click.echo(VERSION)
