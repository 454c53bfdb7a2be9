"""`flask --app wsgi outbox list | retry | drop`: mails that did not go out."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

import click

from app.cli.common import SPOILED, Commands, leave_counts, told_in_words
from app.container import services
from app.errors import RecordUnreadable, StorageUnavailable
from app.repositories.census import Owed
from app.repositories.outbox import Dropped
from app.telemetry.metrics import Stage

outbox = Commands("outbox", help="Mails that did not go out: those still due, and those given up.")

COLUMNS = ("id", "delivery", "attempts", "age", "due", "reason")


@outbox.command("list")
@click.option("--failed", "kind", flag_value="failed", help="Only those that were given up.")
@click.option("--pending", "kind", flag_value="pending", help="Only those that are still due.")
@click.option("--addresses", is_flag=True, help="Show to whom they go: personal data on your screen.")
def list_mails(kind: str | None, addresses: bool) -> None:
    """List the mails that did not go out, with attempts and the reason of the last one."""
    with told_in_words():
        now_ms = services().outbox.now_ms()
        click.echo("\t".join([*COLUMNS, *(["address"] if addresses else [])]))
        count = 0
        for mail in _mails(kind):
            address = [services().census.address(mail) or "(does not open)"] if addresses else []
            click.echo("\t".join([*_columns(mail, now_ms), *address]))
            count += 1
        click.echo(f"{count} mails", err=True)


@outbox.command()
@click.argument("user_id", required=False)
@click.option("--all", "all_of_them", is_flag=True, help="Every mail that is pending or was given up.")
@click.option("--failed", is_flag=True, help="Every mail that was given up.")
def retry(user_id: str | None, all_of_them: bool, failed: bool) -> None:
    """Make one mail, or all of them, due now; those that were given up get another 24 hours.

    The running service sends them, within half a minute. Exit code 1: there is none, or Redis cannot
    use a key of some, to which somebody else has written.
    """
    if (user_id is not None) + all_of_them + failed != 1:
        raise click.UsageError("Name one id, or --failed, or --all.")
    with told_in_words():
        if user_id is None:
            done = Counter(map(_retried, [mail.user_id for mail in _mails("failed" if failed else None)]))
        else:
            done = Counter([services().outbox.retry(user_id)])
    if user_id is not None and not done[True]:
        raise click.ClickException("No mail of this id is pending or was given up.")
    click.echo(f"{done[True]} mails are due now")
    if done[None]:
        raise click.ClickException(SPOILED)


def _retried(user_id: str) -> bool | None:
    """None where a key of this user cannot be used: the others are well."""
    try:
        return services().outbox.retry(user_id)
    except StorageUnavailable as error:
        if not error.of_one_key:
            raise
        click.echo(f"{user_id} cannot be retried", err=True)
        return None


@outbox.command()
@click.argument("user_id")
def drop(user_id: str) -> None:
    """Give up one mail that is due. The registration stays; DELETE /api/users/<id> erases it."""
    with told_in_words():
        match services().outbox.drop(user_id):
            case Dropped.DROPPED:
                _count_failed(user_id)
                click.echo("dropped")
            case Dropped.SENDING:
                raise click.ClickException("It is being sent right now; try again in half a minute.")
            case Dropped.NONE:
                raise click.ClickException("No mail of this id is due.")


def _count_failed(user_id: str) -> None:
    """For the metrics. A record that does not open is not counted: nobody knows its service."""
    with suppress(RecordUnreadable):
        record = services().users.find(user_id)
        if record is not None:
            services().metrics.stage(record.contents.service, Stage.FAILED)
            leave_counts()


def _mails(kind: str | None) -> Iterator[Owed]:
    census = services().census
    pending = census.pending() if kind != "failed" else iter(())
    failed = census.failed() if kind != "pending" else iter(())
    return chain(pending, failed)


def _columns(mail: Owed, now_ms: int) -> list[str]:
    due = "-" if mail.due_ms is None else _span(max(0, mail.due_ms - now_ms))
    return [
        mail.user_id,
        mail.delivery.value,
        str(mail.attempts),
        _span(now_ms - mail.asked_for_ms),
        due,
        mail.error or "-",
    ]


def _span(length_ms: int) -> str:
    """`4s`, `12m`, `31h`: about how long."""
    seconds = length_ms // 1000
    if seconds < 120:
        return f"{seconds}s"
    return f"{seconds // 60}m" if seconds < 7200 else f"{seconds // 3600}h"
