"""The settings: what is wrong with them, and what is allowed but seldom wanted."""

from collections.abc import Iterator
from typing import Final

from flask import Flask

from app.cli.doctor.findings import Area, Finding
from app.config import Settings
from app.errors import SettingsError
from app.mail.smtp import SmtpMail

SETTINGS = Area("settings")

A_DAY_S: Final = 86_400


def wrong(error: SettingsError) -> Iterator[Finding]:
    """What the service says when it refuses to start, setting by setting."""
    for line in str(error).splitlines()[1:]:
        name, _, message = line.strip().partition(": ")
        yield SETTINGS.problem(
            f"{name} is wrong, so the service does not start.",
            f"{message} Correct {name} or the content of its file; docs/settings.md tells more.",
        )


def unusable(settings: Settings) -> Iterator[Finding]:
    """Files that can be read and stop the start all the same: what the service builds of them is built."""
    try:
        SmtpMail(Flask("app", static_folder=None), settings.mail_timeout_s, settings.mail_ca_file)
    except SettingsError:
        yield SETTINGS.problem(
            "MAIL_CA_FILE holds no certificates in PEM, so the service does not start.",
            "Name the file that begins with -----BEGIN CERTIFICATE-----, or unset MAIL_CA_FILE to trust "
            "the system's certificates.",
        )


def examine(settings: Settings) -> Iterator[Finding]:
    """What is allowed, and what an operator should have decided."""
    yield SETTINGS.ok("Every setting can be read.")
    yield from _secrecy(settings)
    yield from _limits(settings)


def _secrecy(settings: Settings) -> Iterator[Finding]:
    if not settings.api_keys and not settings.services_file:
        yield SETTINGS.warning(
            "The API is open: whoever reaches the port can register, erase and verify.",
            "Make a key with `flask --app wsgi keys new NAME` and put what it prints into API_KEYS.",
        )
    if not settings.secret_key:
        yield SETTINGS.warning(
            "Addresses, tokens and numbers lie in Redis in clear.",
            "Set SECRET_KEY to 32 random characters or more (`openssl rand -base64 48`) and keep it safe. "
            "Data that lies in clear already must be erased first: the key is checked at the start.",
        )


def _limits(settings: Settings) -> Iterator[Finding]:
    if not settings.verify_limit.amount:
        yield SETTINGS.warning(
            "Guesses at a number are not limited in time.",
            'Set VERIFY_LIMIT, for example to "5/15 minutes"; now only 100 wrong numbers in a row end it.',
        )
    if not settings.address_limit.amount:
        yield SETTINGS.warning(
            "A mailbox can be flooded: registrations per address are not limited.",
            'Set ADDRESS_LIMIT, for example to "10/hour".',
        )
    if not 0 < settings.number_ttl_s <= A_DAY_S:
        yield SETTINGS.note(
            "Numbers live longer than a day, or for ever.",
            "Where a number is a confirmation code, set NUMBER_TTL to 86400 seconds or less.",
        )
