"""What workers tell each other: here, several in one process."""

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from app.domain.number import NumberGenerator
from app.repositories.census import Census
from app.repositories.guard import Guard
from app.repositories.outbox import Outbox
from app.services.monitoring import Monitoring
from app.telemetry.board import FOLDER, Board, WorkerState
from app.telemetry.metrics import Metrics, Series, add, exposition
from app.threads import WatchedThread
from tests.support.waiting import wait_until

REQUESTS = ("cedula_requests", "/api/users", "POST", "201", "")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


class Ready:
    """A Redis that is ready."""

    def ready(self) -> None: ...


def worker(
    mail_state: Callable[[], tuple[str, float]] = lambda: ("ok", 0.0),
    threads: Sequence[WatchedThread] = (),
    metrics: Metrics | None = None,
    folder_is_new: Callable[[], None] = lambda: None,
) -> Monitoring:
    """One worker's monitoring; what it asks of Redis is not asked here."""
    return Monitoring(
        metrics or Metrics(),
        cast(Guard, Ready()),
        cast(Outbox, None),
        cast(Census, None),
        NumberGenerator(10),
        mail_state=mail_state,
        threads=lambda: threads,
        folder_is_new=folder_is_new,
    )


def counted(times: int) -> Series:
    return {REQUESTS: [float(times)]}


# Slots


def test_each_worker_has_a_slot_and_sees_the_others() -> None:
    """The lowest that is free."""
    first, second = Board(), Board()
    assert (first.join(), second.join()) == ({}, {})
    first.post(WorkerState(smtp="away"), counted(3))
    (seen,) = second.others()
    assert (seen.slot, seen.series) == (1, counted(3))
    assert seen.state is not None
    assert seen.state.smtp == "away"
    assert first.others() == []


def test_a_slot_whose_worker_has_gone_goes_on_with_its_counts() -> None:
    """What it knew is gone with it."""
    gone = os.fork()
    if gone == 0:
        board = Board()
        board.join()
        board.post(WorkerState(smtp="away"), counted(3))
        os._exit(0)
    os.waitpid(gone, 0)
    watching = Board()
    assert watching.join() == counted(3)
    assert watching.slot == 1


def test_the_state_of_a_worker_that_died_vanishes_and_its_counts_stay() -> None:
    """Also before another has taken its slot."""
    watching = Board()
    watching.join()
    gone = os.fork()
    if gone == 0:
        board = Board()
        board.join()
        board.post(WorkerState(breaker_open=True), counted(3))
        os._exit(0)
    os.waitpid(gone, 0)
    (seen,) = watching.others()
    assert (seen.slot, seen.state, seen.series) == (2, None, counted(3))


def test_a_forked_child_does_not_write_for_its_parent() -> None:
    """It has its parent's counts of the moment of the fork."""
    first, second = Board(), Board()
    first.join(), second.join()
    first.post(WorkerState(), counted(3))
    child = os.fork()
    if child == 0:
        first.post(WorkerState(), counted(1))
        os._exit(0)
    os.waitpid(child, 0)
    assert [seen.series for seen in second.others()] == [counted(3)]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"pid": 1}', b'{"at": 1, "series": 2}'])
def test_a_broken_snapshot_is_left_out(folder: Path, content: bytes) -> None:
    """And is written anew by whoever takes its slot."""
    first, second = Board(), Board()
    first.join(), second.join()
    first.post(WorkerState(), counted(3))
    (folder / "1.json").write_bytes(content)
    assert second.others() == []
    first.post(WorkerState(), counted(4))
    assert [seen.series for seen in second.others()] == [counted(4)]


def test_without_a_folder_a_worker_is_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None was made, or it is no folder."""
    for value in ("", str(folder / "file"), "/proc/nowhere/at/all"):
        (folder / "file").touch()
        monkeypatch.setenv(FOLDER, value)
        board = Board()
        assert board.join() == {}
        board.post(WorkerState(), counted(3))
        assert board.others() == []


def test_that_the_folder_was_made_anew_is_told_once(folder: Path) -> None:
    """What else was in it was removed, too."""
    made_anew: list[str] = []
    serving = worker(folder_is_new=lambda: made_anew.append("once"))
    serving.readiness()
    assert made_anew == []
    shutil.rmtree(folder)
    serving.readiness()
    serving.readiness()
    assert made_anew == ["once"]


# Counts


def test_counts_of_another_version_are_left_out() -> None:
    """A metric that is gone, other labels, other buckets."""
    total = counted(1)
    add(total, counted(2))
    add(total, {("cedula_gone",): [1.0], ("cedula_requests", "/api/users"): [1.0]})
    add(total, {("cedula_mail_duration_seconds",): [1.0, 2.0], (): [1.0], ("cedula_gone", "a"): []})
    assert total == counted(3)


def test_a_histogram_is_told_with_cumulative_buckets() -> None:
    """As Prometheus reads it."""
    metrics = Metrics()
    for seconds in (0.003, 0.005, 0.02, 1000):
        metrics.mailed(seconds)
    text = exposition(metrics.series(), []).decode()
    assert 'cedula_mail_duration_seconds_bucket{le="0.005"} 2.0' in text
    assert 'cedula_mail_duration_seconds_bucket{le="600.0"} 3.0' in text
    assert 'cedula_mail_duration_seconds_bucket{le="+Inf"} 4.0' in text
    assert "cedula_mail_duration_seconds_count 4.0" in text
    assert "cedula_mail_duration_seconds_sum 1000.028" in text


# What they know


def test_all_workers_tell_of_the_mail_server_what_one_knows() -> None:
    """What was heard last: a mail that one could send says that the fault of another is over."""
    states = [("ok", 0.0)] * 3
    workers = [worker(partial(states.__getitem__, place)) for place in range(3)]

    def told() -> list[str]:
        for each in workers:
            each.readiness()
        return [each.readiness().smtp for each in workers]

    assert told() == ["ok"] * 3
    states[1] = "connect refused", 1.0
    assert told() == ["connect refused"] * 3
    states[2] = "sender 550 5.7.1", 2.0
    assert told() == ["sender 550 5.7.1"] * 3
    states[1] = "connect refused", 3.0
    assert told() == ["connect refused"] * 3
    states[0] = "ok", 4.0
    assert told() == ["ok"] * 3


def test_all_workers_name_a_thread_that_died_in_one() -> None:
    """And its restart is counted once."""

    def body(thread: WatchedThread) -> None:
        if not thread.deaths:
            raise RuntimeError("a bug")
        thread.stopping.wait(30)

    thread = WatchedThread("outbox-relay", body)
    metrics = Metrics()
    first, second = worker(threads=[thread], metrics=metrics), worker()
    thread.start()
    wait_until(lambda: thread.deaths == 1, 10, "it dies")
    for each in (first, second, first):
        each.readiness()
    assert second.readiness().unwell == first.readiness().unwell == ("outbox-relay",)
    restarts = metrics.series()["cedula_thread_restarts", "outbox-relay"]
    assert restarts == [1]
    thread.stop(10)
