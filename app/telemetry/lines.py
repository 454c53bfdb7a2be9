"""Text streams for stdout and stderr on which writing never raises and never blocks.

May import only the standard library: gunicorn.conf.py loads this file by itself, before gevent has patched
the process and so before `app` may be imported.

Lines go into a bounded queue, and one thread of the system (not gevent's, which a write would block) writes
them in batches. Lines that find the queue full, or that the system does not take, are dropped and counted;
when writing works again, one line tells how many. `kill -9` loses the lines of the last BATCH_S seconds.
"""

import atexit
import importlib
import io
import json
import os
import queue
import select
import sys
import time
from typing import Any, Final

QUEUE_CHARACTERS: Final = 2 * 1024 * 1024
"""A busy worker's lines of some four seconds, while a reader of the log is slow."""

BATCH_LINES: Final = 512
BATCH_S: Final = 0.05
"""Lines are collected for so long: fewer writes, and a thread that wakes 20 times a second at most."""

EXIT_S: Final = 0.5
"""The end of a process waits so long for a stream to take what is left."""

WHOLE: Final = select.PIPE_BUF
"""Bytes in one write, at most: a pipe does not mix so many with another process's (pipe(7))."""

PART_CHARACTERS: Final = 65536
"""Text that comes without its end of line is kept until then, up to this."""


def install() -> None:
    """Puts such streams in the place of stdout and stderr, once in a process."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not hasattr(stream, "dropped"):
            setattr(sys, name, LineStream(-1 if stream is None else stream.fileno()))


def dropped() -> int:
    """How many lines this process could not write; 0 where the streams are Python's own."""
    return sum(getattr(stream, "dropped", 0) for stream in (sys.stdout, sys.stderr))


def native(module: str, name: str) -> Any:
    """The standard library's own, also where gevent has put its own in its place."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name)


class LineStream(io.TextIOBase):
    """Writes lines to a file descriptor. -1, or one that is closed: drops them."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._sleep = native("time", "sleep")
        self._start_thread = native("_thread", "start_new_thread")
        self._allocate_lock = native("_thread", "allocate_lock")
        self._new_queue = native("queue", "SimpleQueue")
        self._begin()
        os.register_at_fork(after_in_child=self._begin)
        atexit.register(self.settle, EXIT_S)

    def _begin(self) -> None:
        """Also in a forked child: the lines that its parent holds are written by the parent."""
        self._lines = self._new_queue()
        self._writing = False
        self._part = ""
        self._overflowed = self._unwritten = self._told = 0
        self._taken = self._settled = 0  # characters: taken into the queue, and done with
        self._torn = False

    @property
    def dropped(self) -> int:
        return self._overflowed + self._unwritten

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Takes the text. A line is passed on when its end comes."""
        if not text.endswith("\n") and len(self._part) < PART_CHARACTERS:
            self._part += text
            return len(text)
        line, self._part = self._part + text, ""
        if self._taken - self._settled >= QUEUE_CHARACTERS:
            self._overflowed += 1
        else:
            self._taken += len(line)
            self._lines.put(line)
        if not self._writing:
            self._start()
        return len(text)

    def flush(self) -> None:
        """Does not wait: a caller that flushes after each line would wait for the reader of the log."""

    def settle(self, timeout_s: float) -> None:
        """Waits until all lines are written, at most `timeout_s` seconds."""
        if self._part:
            self.write("\n")
        if self._writing:
            written = self._allocate_lock()
            written.acquire()
            self._lines.put(written)
            written.acquire(timeout=timeout_s)

    def _start(self) -> None:
        self._writing = True
        try:
            self._start_thread(self._write_lines, (self._lines,))
        except RuntimeError:  # no more threads to be had: the next line tries again
            self._writing = False

    def _write_lines(self, lines: Any) -> None:
        """The thread. `lines`: a queue of lines, and of locks to release when all before them is written."""
        try:
            while True:
                self._write_batch(lines)
        finally:
            if lines is self._lines:
                self._writing = False

    def _write_batch(self, lines: Any) -> None:
        item = lines.get()
        if isinstance(item, str) and lines.qsize() < BATCH_LINES:
            self._sleep(BATCH_S)
        batch: list[str] = []
        waiting: list[Any] = []
        while True:
            (batch if isinstance(item, str) else waiting).append(item)
            if len(batch) >= BATCH_LINES:
                break
            try:
                item = lines.get_nowait()
            except queue.Empty:
                break
        works = self._write_whole(batch)
        self._settled += sum(map(len, batch))
        lost = self.dropped - self._told
        if works and lost and lines.qsize() < BATCH_LINES:
            self._told += lost
            self._write_whole([_gap(lost)])
        for written in waiting:
            written.release()

    def _write_whole(self, batch: list[str]) -> bool:
        """As few writes as hold whole lines. Returns whether the last one succeeded."""
        works, chunk = True, b""
        for line in batch:
            data = line.encode("utf-8", "backslashreplace")
            if chunk and len(chunk) + len(data) > WHOLE:
                works = self._write_chunk(chunk)
                chunk = b""
            chunk += data
        return self._write_chunk(chunk) if chunk else works

    def _write_chunk(self, chunk: bytes) -> bool:
        left = b"\n" + chunk if self._torn else chunk
        try:
            while left:
                try:
                    taken = os.write(self._fd, left)
                except BlockingIOError:  # somebody else has made it non-blocking
                    self._sleep(BATCH_S)
                else:
                    left = left[taken:]
                    self._torn = bool(left)
        except OSError:
            self._unwritten += min(left.count(b"\n"), chunk.count(b"\n"))
            return False
        return True


def _gap(count: int) -> str:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = {"event": "log_lines_dropped", "count": count, "level": "warning", "timestamp": moment}
    return json.dumps(line) + "\n"
