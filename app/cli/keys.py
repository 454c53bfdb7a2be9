"""`flask --app wsgi keys new | reseal`: the keys of those who may call, and of what is stored."""

import sys
import time
from collections import Counter

import click

from app.checks import API_KEY
from app.cli.common import Commands, told_in_words
from app.container import services
from app.directory.directory import digest, new_key
from app.repositories.seals import UNREADABLE, Verdict

keys = Commands("keys", help="API keys, who may call; and SECRET_KEY, which seals what is stored.")

TELL_EVERY_S = 2.0


@keys.command()
@click.argument("name")
def new(name: str) -> None:
    """Make a key called NAME. It is shown once and kept nowhere: only its digest is configured.

    Several keys may have one name, so that the old one goes on until everybody has the new one.
    """
    key = new_key()
    entry = f"{name}:{digest(key)}"
    if not API_KEY.fullmatch(entry):
        raise click.UsageError("A name is 1 to 64 characters of A-Z a-z 0-9 . _ -")
    click.echo(f"The key, for {name}; it is shown this once:\n\n  {key}\n")
    click.echo(f"Add this to API_KEYS (entries are separated by commas):\n\n  {entry}\n")
    click.echo("Or, between quotes, to the keys of a service in SERVICES_FILE. Then send SIGHUP to gunicorn;")
    click.echo("make a container anew that has API_KEYS in its environment.")


@keys.command()
@click.option(
    "--rate", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="Records a second."
)
def reseal(rate: int) -> None:
    """Seal every record anew with SECRET_KEY, so that SECRET_KEY_FALLBACKS can be dropped.

    Works beside the running service, which must have the new SECRET_KEY already. May be interrupted: begun
    again, it does the rest. Exit code 1: some records cannot be read here.
    """
    seals = services().seals
    if not seals.has_key:
        raise click.ClickException(
            "SECRET_KEY is not set, so there is nothing to seal with. Data in clear stays so."
        )
    done: Counter[Verdict] = Counter()
    told = time.monotonic()
    try:
        with told_in_words():
            for done in seals.reseal_all(rate):
                if time.monotonic() - told >= TELL_EVERY_S:
                    _tell_progress(done)
                    told = time.monotonic()
    except KeyboardInterrupt:
        click.echo("Interrupted; begin again to seal the rest.", err=True)
        raise
    finally:
        _tell_progress(done)
    click.echo(f"looked at\t{done.total()}")
    for verdict in Verdict:
        click.echo(f"{verdict}\t{done[verdict]}")
    if any(done[verdict] for verdict in UNREADABLE):
        click.echo("Some records cannot be read here; `doctor` says what to do.", err=True)
        sys.exit(1)


def _tell_progress(done: Counter[Verdict]) -> None:
    click.echo(f"{done.total()} looked at, {done[Verdict.RESEALED]} sealed anew", err=True)
