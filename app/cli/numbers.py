"""`flask --app wsgi numbers fill`: how much of the number space is taken, counted."""

import click

from app.cli.common import Commands, told_in_words
from app.container import services
from app.domain.number import SHARDS

numbers = Commands("numbers", help="The identification numbers as a whole.")

FULL = 0.8
"""As the alert CedulaNumberSpaceFilling: from here a registration tries five numbers on average."""


@numbers.command()
@click.option("--shards", is_flag=True, help="A line for each of the 1,000 shards, too.")
def fill(shards: bool) -> None:
    """Count the numbers that are taken, overall and in the fullest shard.

    Reads every key in Redis, a thousand at a time: seconds for a million.
    """
    possible = services().numbers.possibilities
    with told_in_words():
        taken = services().census.numbers_by_shard()
    if shards:
        for shard in range(SHARDS):
            click.echo(f"{shard:03}\t{taken[shard]}\t{taken[shard] / possible:.6%}")
    fullest, most = max(taken.items(), key=lambda found: found[1], default=(0, 0))
    click.echo(f"overall\t{taken.total()} of {SHARDS * possible}\t{taken.total() / (SHARDS * possible):.6%}")
    click.echo(f"fullest\t{most} of {possible} in shard {fullest:03}\t{most / possible:.6%}")
    if most > FULL * possible:
        click.echo("Set NUMBER_DIGITS higher; numbers mailed before are not accepted then.", err=True)
