"""`flask --app wsgi suppressions list | lift`: addresses that a report holds back."""

import click

from app.cli.common import Commands, of_service, told_in_words, user_id_of
from app.container import services
from app.domain.registration import rfc3339

suppressions = Commands("suppressions", help="Addresses that are held back: a mail to them came back.")


@suppressions.command("list")
def list_addresses() -> None:
    """List them by id, with what was reported, when, and until when they are held back."""
    with told_in_words():
        click.echo("id\tkind\tsince\tuntil")
        count = 0
        for found in services().suppressions.held_back():
            since, until = rfc3339(found.since_ms), rfc3339(found.until_ms)
            click.echo(f"{found.user_id}\t{found.kind}\t{since}\t{until}")
            count += 1
        click.echo(f"{count} addresses", err=True)


@suppressions.command()
@click.argument("user")
@of_service
def lift(user: str, service_id: str) -> None:
    """Let USER, an address or an id, be registered and mailed again."""
    user_id = user_id_of(user, service_id)
    with told_in_words():
        if not services().suppressions.lift(user_id):
            raise click.ClickException("This address is not held back.")
    click.echo(f"{user_id} is held back no longer")
