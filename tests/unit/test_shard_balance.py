"""How evenly the thousand shards lie on the masters of a cluster; docs/capacity.md shows it."""

import re
from bisect import bisect_right
from collections import Counter
from pathlib import Path

import pytest
from redis.crc import key_slot

from app.domain.number import SHARDS

SLOTS = 16_384
MASTERS = range(3, 31)


SLOT_OF = [key_slot(b"{%03d}" % shard) for shard in range(SHARDS)]


def shards_of_masters(masters: int) -> list[int]:
    """Slots go to masters as `redis-cli --cluster create` deals them out."""
    ends = [round((master + 1) * SLOTS / masters) for master in range(masters)]
    return sorted(Counter(bisect_right(ends, slot) for slot in SLOT_OF).values())


def test_every_shard_has_a_slot_of_its_own() -> None:
    """So that shards can be moved one by one."""
    assert len(set(SLOT_OF)) == SHARDS


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
