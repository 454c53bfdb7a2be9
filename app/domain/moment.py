"""Times as answers and events tell them."""

from datetime import UTC, datetime
from functools import lru_cache


def rfc3339(unix_ms: int) -> str:
    """`2026-11-22T16:53:29.123Z` (RFC 3339)."""
    return f"{_second(unix_ms // 1000)}.{unix_ms % 1000:03}Z"


@lru_cache(maxsize=8)
def _second(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%S}"
