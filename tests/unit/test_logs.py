"""Log lines: one JSON object each, whatever is in it."""

import json
import os
import threading
import tracemalloc
from pathlib import Path

import pytest

from app.telemetry.lines import QUEUE_CHARACTERS, LineStream
from app.telemetry.logs import _to_json, places
from tests.support.waiting import wait_until


class Untold:
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "value", ["ada", "\ud800", 2**80, float("nan"), {1: 2}, ValueError, Untold(), [Untold()]]
)
def test_no_value_keeps_a_line_from_being_written(value: object) -> None:
    """A line that fails would take its request with it."""
    assert json.loads(_to_json({"event": "request", "value": value}))["event"] == "request"


def test_a_value_that_holds_itself_is_written() -> None:
    """It has no JSON."""
    value: list[object] = []
    value.append(value)
    assert json.loads(_to_json({"event": "request", "value": value}))["event"] == "request"


def test_an_error_is_told_by_its_places_and_not_by_its_message() -> None:
    """A message may quote what a client sent."""
    try:
        int("ada@example.com")
    except ValueError as error:
        (place,) = places(error.__traceback__)
    assert place.endswith("test_an_error_is_told_by_its_places_and_not_by_its_message")
    assert __file__ in place


# Writing


def stream_to(path: Path) -> LineStream:
    return LineStream(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))


def test_lines_are_written_in_their_order(tmp_path: Path) -> None:
    """More than one batch of them, and text that comes in pieces."""
    stream = stream_to(tmp_path / "log")
    for turn in range(2000):
        stream.write(f"line {turn}")
        stream.write("\n")
    stream.settle(10)
    assert (tmp_path / "log").read_text().splitlines() == [f"line {turn}" for turn in range(2000)]
    assert stream.dropped == 0


def test_a_full_queue_drops_lines_and_tells_of_it_when_there_is_room() -> None:
    """The reader of a pipe stops and comes back: the writer never waits for it."""
    reader, writer = os.pipe()
    stream = LineStream(writer)
    written = QUEUE_CHARACTERS // 20
    for turn in range(written):
        stream.write(f"line {turn} of a log that nobody reads\n")
    assert stream.dropped > 0
    found: list[str] = []

    def read() -> None:
        with os.fdopen(reader) as pipe:
            found.extend(pipe)

    thread = threading.Thread(target=read)
    thread.start()
    stream.settle(20)
    os.close(writer)
    thread.join(20)
    gaps = [json.loads(line) for line in found if line.startswith("{")]
    assert {gap["event"] for gap in gaps} == {"log_lines_dropped"}
    assert sum(gap["count"] for gap in gaps) == stream.dropped
    assert len(found) - len(gaps) == written - stream.dropped


def test_long_lines_that_nobody_reads_fill_no_memory() -> None:
    """The queue is bounded by what is in it: a traceback may be longer than a thousand other lines."""
    reader, writer = os.pipe()
    stream = LineStream(writer)
    tracemalloc.start()
    try:
        for _ in range(100):
            stream.write("x" * 1_000_000 + "\n")
        assert tracemalloc.get_traced_memory()[1] < 5 * QUEUE_CHARACTERS
    finally:
        tracemalloc.stop()
        os.close(reader)
        stream.settle(10)
        os.close(writer)
    assert stream.dropped in (100, 101)  # with the line that tells of them, where it came to be written


@pytest.mark.parametrize("target", ["/dev/full", "closed", "no reader"])
def test_lines_that_cannot_be_written_are_counted(target: str) -> None:
    """No write raises."""
    if target == "/dev/full":
        fd = os.open(target, os.O_WRONLY)
    else:
        reader, fd = os.pipe()
        os.close(reader)
        if target == "closed":
            os.close(fd)
            fd = -1
    stream = LineStream(fd)
    for _ in range(3):
        stream.write("line\n")
    stream.settle(10)
    assert stream.dropped == 3


def test_a_line_that_was_cut_short_is_ended_before_the_next(tmp_path: Path) -> None:
    """A disk that fills up takes half a line; what comes when there is room again stands by itself."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    stream = LineStream(writer)
    stream.write("x" * 200_000 + "\n")
    stream.write("after\n")
    parts: list[bytes] = []

    def all_read() -> bool:
        parts.append(os.read(reader, 65536))
        return b"".join(parts).endswith(b"after\n")

    wait_until(all_read, 20)
    assert b"".join(parts) == b"x" * 200_000 + b"\nafter\n"
    os.close(reader)
    os.close(writer)


def test_a_forked_child_begins_with_nothing(tmp_path: Path) -> None:
    """What its parent has in hand is written once, by the parent; the child writes its own."""
    stream = stream_to(tmp_path / "log")
    stream.write("parent\n")
    child = os.fork()
    if child == 0:
        stream.write("child\n")
        stream.settle(10)
        os._exit(0)
    os.waitpid(child, 0)
    stream.settle(10)
    assert sorted((tmp_path / "log").read_text().split()) == ["child", "parent"]
