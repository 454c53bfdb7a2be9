"""`flask --app wsgi doctor`: examines everything the service depends on; says what is wrong and what to do.

A module for each area of the findings; `examination` calls one after the other. Changes nothing: what it
writes to Redis, to see whether writes are taken, is gone after five seconds, and it sends no mail.
"""

import sys

import click

from app.cli.common import tell
from app.telemetry import logs


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
@click.option("--dns/--no-dns", default=True, help="Whether to look up the domains that mails come from.")
def doctor(as_json: bool, dns: bool) -> None:
    """Examine settings, Redis, some records, outbox, mail server, receivers of events, sender domain and
    clock; say what to do.

    Changes nothing and sends nothing. Exit code 0: all is well; 1: warnings; 2: something does not work.
    """
    from app.cli.doctor import domain, examination  # here: a serving process needs no DNS client

    logs.configure()
    findings = []
    for finding in examination.examine(domain.resolver() if dns else None):
        findings.append(finding)
        if not as_json:
            tell(examination.as_text(finding))  # now: what is examined next may not answer for a while
    tell(examination.as_json(findings) if as_json else examination.summary(findings))
    sys.exit(examination.exit_code(findings))
