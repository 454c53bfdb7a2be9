"""The operator's commands, in one place: `flask --app wsgi --help`.

Promise: they work beside the running service; none of them starts the relay or sends a mail. Those that
use Redis do so within `told_in_words`: one that is away, or another key's, is a sentence; the others need
none. May import every other room; only `create_app` and `wsgi.py` import this one.
"""

import os
import sys
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
"""Commands for a service that may not be able to start: they look at its settings at most."""


def needs_no_service() -> bool:
    """Whether this process is such a command: `flask --app wsgi doctor`."""
    asked = [command for word in sys.argv[1:] for command in COMMANDS if command.name == word]
    is_flask = os.environ.get("FLASK_RUN_FROM_CLI") == "true"
    return is_flask and bool(asked) and asked[0] in WITHOUT_A_SERVICE


def app_without_a_service() -> Flask:
    """An app that has these commands alone, whatever the settings are."""
    app = Flask("app", static_folder=None)
    for command in WITHOUT_A_SERVICE:
        app.cli.add_command(command)
    return app
