"""`flask --app wsgi users show | erase`: one registration, for an operator who was asked about it."""

import json

import click

from app.cli.common import Commands, of_service, told_in_words, user_id_of
from app.container import services
from app.errors import UserNotFound
from app.http.schemas import UserAnswer

users = Commands("users", help="One registration, by address or id: look at it, erase it.")

NOTHING = "Nothing is registered for this user."


@users.command()
@click.argument("user")
@of_service
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def show(user: str, service_id: str, as_json: bool) -> None:
    """Show what the API tells of USER, an address or an id: neither number nor token."""
    with told_in_words():
        try:
            found = UserAnswer().dump(services().registration.find(user_id_of(user, service_id)))
        except UserNotFound as error:
            raise click.ClickException(NOTHING) from error
    if as_json:
        click.echo(json.dumps(found))
    else:
        for name, value in found.items():
            click.echo(f"{name:14}{value}")


@users.command()
@click.argument("user")
@of_service
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(user: str, service_id: str, yes: bool) -> None:
    """Erase everything of USER, an address or an id, but its budgets; those end by themselves. Also a record
    that does not open."""
    user_id = user_id_of(user, service_id)
    if not yes:
        click.confirm(f"Erase {user_id}? Its number will not be accepted any more.", abort=True)
    with told_in_words():
        try:
            services().registration.erase(user_id)
        except UserNotFound as error:
            raise click.ClickException(NOTHING) from error
    click.echo(f"{user_id} is erased")
