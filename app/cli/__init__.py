"""The operator's commands, in one place: `flask --app wsgi --help`.

Promise: they work beside the running service; none of them starts the relay or sends a mail. Those that
use Redis do so within `told_in_words`, which says in one sentence that Redis is away, or its data has another
key; the others need no Redis. May import every other room; only `create_app` and `wsgi.py` import this one.
"""

from collections.abc import Sequence
from typing import Final

from flask import Flask

from app.cli.bounces import bounces
from app.cli.doctor import doctor
from app.cli.keys import keys
from app.cli.mail import mail
from app.cli.numbers import numbers
from app.cli.outbox import outbox
from app.cli.services import services
from app.cli.suppressions import suppressions
from app.cli.users import users
from app.cli.version import version

COMMANDS: Final = (bounces, doctor, keys, mail, numbers, outbox, services, suppressions, users, version)

WITHOUT_A_SERVICE: Final = (doctor, services, version)
"""They work where the service cannot start, and look at its settings at most."""


SERVER: Final = "run"
"""Flask's own command that serves: its development server."""


def serves(words: Sequence[str]) -> bool:
    """Whether a command line asks for Flask's development server."""
    return _asked(words) == SERVER


def needs_no_service(words: Sequence[str]) -> bool:
    """Whether a command line asks for such a command."""
    return _asked(words) in {command.name for command in WITHOUT_A_SERVICE}


def _asked(words: Sequence[str]) -> str:
    """The first word that is a command; those after it may be names of keys or services."""
    names = {SERVER, *(command.name for command in COMMANDS)}
    return next((word for word in words if word in names), "")


def app_without_a_service() -> Flask:
    """An app that has these commands alone, whatever the settings are."""
    app = Flask("app", static_folder=None)
    for command in WITHOUT_A_SERVICE:
        app.cli.add_command(command)
    return app
