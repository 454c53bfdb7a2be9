"""The WSGI entry point: `gunicorn wsgi:app`."""

import sys

from app import create_app
from app.errors import SettingsError, WrongIndexKey

try:
    app = create_app()
except (SettingsError, WrongIndexKey) as error:
    sys.exit(f"cedula cannot start. {error}")

app.extensions["cedula"].start()
