"""How evenly the thousand shards lie on the masters of a cluster; docs/capacity.md shows it."""

import re
from collections import Counter
from pathlib import Path

import pytest
from redis.crc import key_slot

from app.domain.number import SHARDS

SLOTS = 16_384
MASTERS = range(3, 31)


def even_split(masters: int) -> list[int]:
    """The master of each slot, as `redis-cli --cluster create` deals them out."""
    return [
        next(m for m in range(masters) if slot < round((m + 1) * SLOTS / masters)) for slot in range(SLOTS)
    ]


def shards_of_masters(masters: int) -> list[int]:
    owner = even_split(masters)
    return sorted(Counter(owner[key_slot(b"{%03d}" % shard)] for shard in range(SHARDS)).values())


def test_every_shard_has_a_slot_of_its_own() -> None:
    """So that shards can be moved one by one."""
    assert len({key_slot(b"{%03d}" % shard) for shard in range(SHARDS)}) == SHARDS


def test_the_documented_table_is_the_balance() -> None:
    """Masters, shards of the emptiest and the fullest, and how much more than its share the fullest has."""
    page = (Path(__file__).parents[2] / "docs/capacity.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) % \|$", page, re.MULTILINE)
    computed = []
    for masters in MASTERS:
        counts = shards_of_masters(masters)
        more = round(100 * (counts[-1] * masters / SHARDS - 1))
        computed.append(tuple(map(str, (masters, counts[0], counts[-1], more))))
    assert documented == computed


@pytest.mark.parametrize("masters", MASTERS)
def test_no_master_has_much_more_than_its_share(masters: int) -> None:
    """A fifth more at most, at thirty masters."""
    assert shards_of_masters(masters)[-1] <= 1.2 * SHARDS / masters
