"""Waiting until something holds, instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

STEP_S = 0.02


def wait_until(holds: Callable[[], T], timeout_s: float = 30.0, what: str = "") -> T:
    """The first true value of `holds()`. Raises AssertionError after the time-out."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > deadline:
            name = what or getattr(holds, "__name__", "condition")
            raise AssertionError(f"not within {timeout_s} s: {name}")
        time.sleep(STEP_S)
