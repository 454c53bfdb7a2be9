"""Cedula: registers people by e-mail address for other services."""

import secrets

import structlog
from flask import Flask

from app.cli import COMMANDS
from app.config import Settings
from app.container import Container
from app.domain.number import RandBelow
from app.errors import StorageUnavailable, WrongIndexKey
from app.http import auth, hooks, openapi, pages, problems
from app.http.application import Application
from app.mail.connection import flask_settings
from app.routes import api, operations
from app.telemetry import logs


def create_app(settings: Settings | None = None, randbelow: RandBelow = secrets.randbelow) -> Flask:
    """The application. Reads the environment where no settings are given, and does not touch Redis.

    Raises SettingsError. `randbelow`: the source of randomness for numbers; tests bring their own.
    """
    logs.configure()
    settings = settings or Settings.from_environment()
    app = Application(__name__, static_folder=None)
    app.config.from_mapping(flask_settings(settings))

    container = Container(app, settings, randbelow)
    app.extensions["cedula"] = container
    hooks.install(app, container.metrics, container.traces)
    auth.install(app, container)
    openapi.install(app, (api, operations), is_open=container.directory.anyone is not None)
    problems.install(app)
    pages.install(app, with_docs=settings.docs)
    for command in COMMANDS:
        app.cli.add_command(command)
    return app


def start(app: Flask) -> None:
    """Starts what serving needs in this process: relays and other threads. Commands of operators need none.

    Raises WrongIndexKey when the data in Redis belongs to another key.
    """
    container: Container = app.extensions["cedula"]
    try:
        container.guard.check()
    except WrongIndexKey:
        raise
    except StorageUnavailable:  # the key is checked again before the first registration
        pass
    _warn(container)
    container.start()


def _warn(container: Container) -> None:
    """Logs what the operator should know."""
    log = structlog.get_logger()
    if not container.settings.secret_key:
        log.warning("stored_in_clear", hint="set SECRET_KEY to seal what is stored in Redis")
    if container.directory.anyone:
        log.warning("open_to_everybody", hint="set API_KEYS or SERVICES_FILE to say who may call")
    if container.traces.fault:
        log.warning("traces_off", hint=container.traces.fault)
    if not container.guard.passed:
        log.warning("redis_away_at_start", hint="requests get 503 until it answers")
