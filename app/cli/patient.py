"""Commands for a service that may not be able to start: they look at its settings, and need no service."""

import os
import sys
from typing import Final

from flask import Flask

from app.cli import COMMANDS
from app.cli.doctor.command import doctor
from app.cli.services import services

WITHOUT_A_SERVICE: Final = (doctor, services)


def asked_for() -> bool:
    """Whether this process is such a command: `flask --app wsgi doctor`."""
    names = {command.name for command in COMMANDS}
    asked = next((word for word in sys.argv[1:] if word in names), "")
    return os.environ.get("FLASK_RUN_FROM_CLI") == "true" and asked in {
        each.name for each in WITHOUT_A_SERVICE
    }


def patient() -> Flask:
    """An app that can only be examined, whatever the settings are."""
    app = Flask("app", static_folder=None)
    for command in WITHOUT_A_SERVICE:
        app.cli.add_command(command)
    return app
