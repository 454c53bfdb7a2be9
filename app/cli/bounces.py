"""`flask --app wsgi bounces read`: takes one report of a mail, from a pipe of the mail server."""

import sys
from contextlib import suppress
from typing import BinaryIO

import click
from flask.cli import AppGroup

from app.cli.common import leave_counts
from app.container import services
from app.mail import reports
from app.mail.incoming import MAX_BYTES

bounces = AppGroup("bounces", help="What became of mails after the mail server had accepted them.")

TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h: the mail server keeps the message and runs the command again later."""


@bounces.command("read")
def read_message() -> None:
    """Read one message from standard input: a bounce, a complaint, or anything else, which is ignored.

    Exit code 0: done, or ignored. 75: try again, since Redis does not answer, or has
    another INDEX_KEY's data.
    """
    try:
        report = reports.read(_all(sys.stdin.buffer))
        outcome = services().reports.take(report)
        leave_counts()
    except Exception as error:  # noqa: BLE001 - any other exit code loses the message, or sends it back
        _tell(f"Try again: {type(error).__name__}; see `doctor`.", err=True)
        sys.exit(TRY_AGAIN)
    _tell(f"{report.kind} {outcome}")


def _tell(words: str, *, err: bool = False) -> None:
    """Where the words can be written: a log may be full, or nobody may read it."""
    try:
        click.echo(words, err=err)
    except OSError:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError):
                stream.close()  # else Python writes again when it ends, and ends with 120


def _all(stream: BinaryIO) -> bytes:
    """The first MAX_BYTES. The rest is read and dropped: to a mail server a closed pipe is an error."""
    data = stream.read(MAX_BYTES)
    while stream.read(MAX_BYTES):
        pass
    return data
