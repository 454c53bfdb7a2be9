"""What the commands have in common."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import click
from flask import current_app

from app.container import Container
from app.domain.address import Address
from app.errors import InvalidAddress, RecordUnreadable, StorageUnavailable

USER_ID = re.compile(r"[a-z2-7]{26}")


def services() -> Container:
    found: Container = current_app.extensions["cedula"]
    return found


@contextmanager
def told_in_words() -> Iterator[None]:
    """Redis being away is a sentence, not a traceback."""
    try:
        yield
    except RecordUnreadable as error:
        raise click.ClickException(str(error)) from error
    except StorageUnavailable as error:
        raise click.ClickException("Redis does not answer, or refuses the write; see `doctor`.") from error


def user_id_of(text: str) -> str:
    """The id of a user that an operator names by id or address. Raises UsageError."""
    if USER_ID.fullmatch(text):
        return text
    try:
        return services().names.user(Address.parse(text).identity).user_id
    except InvalidAddress as error:
        raise click.UsageError("Name a user by address, or by the id that the API gave.") from error
