"""`flask --app wsgi bounces read`: takes one report of a mail, from a pipe of the mail server."""

import sys
from typing import BinaryIO

from app.cli.common import Commands, leave_counts, tell
from app.container import services
from app.mail import reports
from app.mail.incoming import MAX_BYTES

bounces = Commands("bounces", help="What became of mails after the mail server had accepted them.")

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
        tell(f"Try again: {type(error).__name__}; see `doctor`.", err=True)
        sys.exit(TRY_AGAIN)
    tell(f"{report.kind} {outcome}")


def _all(stream: BinaryIO) -> bytes:
    """The first MAX_BYTES. The rest is read and dropped: to a mail server a closed pipe is an error."""
    data = stream.read(MAX_BYTES)
    while stream.read(MAX_BYTES):
        pass
    return data
