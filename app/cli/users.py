"""`flask --app wsgi users show | erase`: one registration, for an operator who was asked about it."""

import json
from datetime import UTC, datetime

import click
from flask.cli import AppGroup

from app.cli.common import services, told_in_words, user_id_of
from app.domain.registration import UserRecord
from app.errors import UserNotFound

users = AppGroup("users", help="One registration, by address or id: look at it, erase it.")

NOTHING = "Nothing is registered for this user."


@users.command()
@click.argument("user")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def show(user: str, as_json: bool) -> None:
    """Show what is known of USER, an address or an id. Neither number nor token: nobody reads those here."""
    with told_in_words():
        try:
            found = described(services().registration.find(user_id_of(user)))
        except UserNotFound as error:
            raise click.ClickException(NOTHING) from error
    if as_json:
        click.echo(json.dumps(found))
    else:
        for name, value in found.items():
            click.echo(f"{name:14}{'-' if value is None else value}")


@users.command()
@click.argument("user")
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(user: str, yes: bool) -> None:
    """Erase everything of USER, an address or an id, but its two budgets; those end by themselves."""
    user_id = user_id_of(user)
    if not yes:
        click.confirm(f"Erase {user_id}? Its number will not be accepted any more.", abort=True)
    with told_in_words():
        try:
            services().registration.erase(user_id)
        except UserNotFound as error:
            raise click.ClickException(NOTHING) from error
    click.echo(f"{user_id} is erased")


def described(user: UserRecord) -> dict[str, str | int | None]:
    return {
        "id": user.user_id,
        "email": user.email,
        "delivery": user.delivery.value,
        "created_at": _time(user.created_ms),
        "expires_at": _time(user.expires_ms),
        "mailed_at": _time(user.mailed_ms),
        "mail_attempts": user.attempts,
        "mail_error": user.error,
    }


def _time(moment_ms: int | None) -> str | None:
    if moment_ms is None:
        return None
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="milliseconds")
