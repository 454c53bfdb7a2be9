"""Commands for a service that may not be able to start: they need none, and look at its settings at most."""

import os
import sys
from typing import Final

from flask import Flask

from app.cli import COMMANDS
from app.cli.doctor.command import doctor
from app.cli.services import services
from app.cli.version import version

WITHOUT_A_SERVICE: Final = (doctor, services, version)


def asked_for() -> bool:
    """Whether this process is such a command: `flask --app wsgi doctor`."""
    asked = [command for word in sys.argv[1:] for command in COMMANDS if command.name == word]
    is_flask = os.environ.get("FLASK_RUN_FROM_CLI") == "true"
    return is_flask and bool(asked) and asked[0] in WITHOUT_A_SERVICE


def patient() -> Flask:
    """An app that can only be examined, whatever the settings are."""
    app = Flask("app", static_folder=None)
    for command in WITHOUT_A_SERVICE:
        app.cli.add_command(command)
    return app
