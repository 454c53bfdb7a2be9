"""What the tests of `doctor` share: how a finding is looked for, and a mail server to look at."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from app.cli.doctor.findings import Finding, Level
from app.config import Settings
from tests.support.servers import MailServer

SECRET = "s" * 40

SENDER = "Cedula <no-reply@mail.example.com>"


def worst(findings: Iterable[Finding]) -> list[Finding]:
    """The warnings and problems."""
    return [finding for finding in findings if finding.level in (Level.WARNING, Level.PROBLEM)]


def assert_found(findings: Iterable[Finding], level: Level, says: str, cure: str) -> None:
    """Exactly one warning or problem, which says what is wrong and what to do."""
    (found,) = worst(findings)
    assert (found.level, says in found.says, cure in found.cure) == (level, True, True), found


@contextmanager
def smtp(handler: Any = None, **options: Any) -> Iterator[Settings]:
    """The settings for a mail server that is there as long as the block."""
    server = MailServer(handler, **options)
    yield Settings(
        mail_server="localhost", mail_port=server.port, mail_default_sender=SENDER, mail_timeout_s=2.0
    )
    server.stop()
