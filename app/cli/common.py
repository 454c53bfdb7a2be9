"""What the commands have in common."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
from flask.cli import AppGroup

from app.container import services
from app.domain.address import Address
from app.domain.registration import USER_ID
from app.domain.service import DEFAULT
from app.errors import InvalidAddress, RecordUnreadable, StorageUnavailable, WrongIndexKey

of_service = click.option(
    "--service",
    "service_id",
    default=DEFAULT,
    show_default=True,
    help="Whose address it is; an id needs none.",
)
"""For commands that take an address."""


SPOILED = "Somebody else has written to a key of the user; see CedulaStorageUnavailable in docs/runbook.md."


class Command(click.Command):
    """A command that says in one line which file it cannot write, or that it is its output, and ends with
    1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # whoever read the output has seen enough; click ends the command
            raise
        except OSError as error:
            tell(f"Error: {error.filename or 'the output'}: {error.strerror}", err=True)
            ctx.exit(1)


class Commands(Command, AppGroup):
    """Commands of one kind."""


def tell(words: str, *, err: bool = False) -> None:
    """Where the words can be written: a log may be full, or nobody may read it."""
    open_streams = [stream for stream in (sys.stdout, sys.stderr) if stream and not stream.closed]
    if (sys.stderr if err else sys.stdout) in open_streams:
        with suppress(OSError):
            click.echo(words, err=err)
    for stream in open_streams:
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):
                stream.close()  # else Python writes again when it ends, and ends with 120


def leave_counts() -> None:
    """Hands what this command has counted to the processes that serve, whose metrics then show it."""
    services().counts.leave(services().metrics.series())


@contextmanager
def told_in_words() -> Iterator[None]:
    """Around all that uses Redis: raises ClickException where it does not answer, cannot use a key, or its
    data has another index key."""
    try:
        services().guard.check()
        yield
    except (WrongIndexKey, RecordUnreadable) as error:
        raise click.ClickException(str(error)) from error
    except StorageUnavailable as error:
        says = SPOILED if error.of_one_key else "Redis does not answer, or refuses the write; see `doctor`."
        raise click.ClickException(says) from error


def user_id_of(text: str, service_id: str = DEFAULT) -> str:
    """The id of a user that an operator names by id, or by an address of this service. Raises UsageError."""
    if re.fullmatch(USER_ID, text):
        return text
    try:
        return services().names.user(service_id, Address.parse(text)).user_id
    except InvalidAddress as error:
        raise click.UsageError("Name a user by address, or by the id that the API gave.") from error
