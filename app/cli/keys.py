"""`flask --app wsgi keys new NAME`: keys for the services that may call."""

import click
from flask.cli import AppGroup

from app.config import API_KEY
from app.http.auth import digest, new_key

keys = AppGroup("keys", help="API keys: who may call.")


@keys.command()
@click.argument("name")
def new(name: str) -> None:
    """Make a key for the service NAME. It is shown once and kept nowhere: only its digest is configured.

    Several keys may have one name, so that the old one goes on until everybody has the new one.
    """
    key = new_key()
    entry = f"{name}:{digest(key)}"
    if not API_KEY.fullmatch(entry):
        raise click.UsageError("A name is 1 to 64 characters of A-Z a-z 0-9 . _ -")
    click.echo(f"The key, for {name}; it is shown this once:\n\n  {key}\n")
    click.echo(f"Add to API_KEYS (entries are separated by commas), and restart:\n\n  {entry}\n")
