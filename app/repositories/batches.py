"""Many keys asked in few round trips. What is wrong with one key costs that key alone."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import structlog

from app.errors import StorageUnavailable
from app.storage.storage import Storage

T = TypeVar("T")
Question = Callable[[T], tuple[Any, ...]]
"""The command that asks about an item; its key follows its name."""

AT_A_TIME = 100
"""Keys in one round trip: a millisecond of this process, after which others get their turn."""

log = structlog.get_logger()


def ask_each(
    storage: Storage, items: Iterable[T], question: Question[T], instead: Any = None
) -> Iterator[tuple[T, Any]]:
    """Every item with the answer to one question about it.

    A key that Redis cannot use, such as one of the wrong type, is logged; its item is left out, or has the
    answer `instead`. Raises StorageUnavailable.
    """
    remaining = iter(items)
    while batch := list(islice(remaining, AT_A_TIME)):
        try:
            answers = storage.pipeline([question(item) for item in batch])
        except StorageUnavailable as error:
            if not error.of_one_key:
                raise
            yield from _one_by_one(storage, batch, question, instead)
        else:
            yield from zip(batch, answers, strict=True)


def _one_by_one(
    storage: Storage, batch: list[T], question: Question[T], instead: Any
) -> Iterator[tuple[T, Any]]:
    for item in batch:
        command = question(item)
        try:
            answer = storage.command(*command)
        except StorageUnavailable as error:
            if not error.of_one_key:
                raise
            log.error("key_spoiled", redis_key=command[1], error=error.code)
            answer = instead
            if instead is None:
                continue
        yield item, answer
