"""Threads that live whatever happens in them, and steps that end."""

import os
import threading
from functools import partial
from itertools import count

import pytest

from app.threads import UNWELL_S, Steps, WatchedThread
from tests.support.waiting import wait_until


def test_a_thread_whose_body_raises_is_started_again_counted_and_told() -> None:
    """Not only Exceptions: a greenlet is killed with a BaseException."""
    lives = count(1)
    lived = threading.Event()

    def body(thread: WatchedThread) -> None:
        if next(lives) == 1:
            raise SystemExit
        lived.set()
        thread.stopping.wait()

    thread = WatchedThread("relay", body)
    thread.start()
    assert lived.wait(10)
    assert (thread.deaths, thread.alive, thread.fault) == (1, True, "died")
    thread.stop(10)
    assert not thread.alive
    assert thread.fault == ""


def test_a_death_is_told_for_a_while_and_then_forgotten() -> None:
    """A probe that comes every few seconds sees it."""
    now = [0.0]
    lives = count(1)

    def body(thread: WatchedThread) -> None:
        if next(lives) == 1:
            raise ValueError
        thread.stopping.wait()

    thread = WatchedThread("relay", body, clock=lambda: now[0])
    thread.start()
    wait_until(lambda: thread.fault == "died", 10, "it is told")
    now[0] = UNWELL_S
    assert thread.fault == ""
    thread.stop(10)


def test_a_thread_that_does_not_beat_is_told() -> None:
    """Alive is not enough: one that waits for ever does nothing either."""
    now = [0.0]

    def waits(thread: WatchedThread) -> None:
        thread.stopping.wait()

    thread = WatchedThread("relay", waits, silent_s=5, clock=lambda: now[0])
    thread.start()
    now[0] = 4.9
    assert thread.fault == ""
    now[0] = 5.1
    assert thread.fault == "silent"
    thread.beat()
    assert thread.fault == ""
    thread.stop(10)


def test_a_body_that_returns_has_done_its_work() -> None:
    """It is not started again, and nothing is wrong."""
    thread = WatchedThread("sender", lambda _: None)
    thread.start()
    wait_until(lambda: not thread.alive, 10, "it ends")
    assert (thread.deaths, thread.fault) == (0, "")


def test_a_step_that_hangs_ends_for_its_caller_and_keeps_its_place_until_it_really_ends() -> None:
    """So no more steps than that go on at a time; whoever finds no place is told in time, too."""
    go, steps = threading.Event(), Steps(2)
    for _ in range(2):
        with pytest.raises(TimeoutError, match="the step took"):
            steps.within(0.05, lambda: go.wait(10))
    with pytest.raises(TimeoutError, match="the steps before"):
        steps.within(0.05, lambda: True)
    go.set()
    assert [steps.within(10, partial(abs, turn)) for turn in range(4)] == [*range(4)]


def test_a_step_gives_its_result_and_its_error() -> None:
    """As if it had been called."""
    steps = Steps(1)
    assert steps.within(10, lambda: 7) == 7

    def fails() -> None:
        raise KeyError("x")

    for _ in range(2):
        with pytest.raises(KeyError):
            steps.within(10, fails)


def test_a_forked_process_has_none_of_its_parents_steps() -> None:
    """Nobody would ever give their places back there."""
    go, steps = threading.Event(), Steps(1)
    with pytest.raises(TimeoutError):
        steps.within(0.05, lambda: go.wait(10))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = steps.within(5, lambda: 0)
        finally:
            os._exit(status)
    go.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_thread_that_is_killed_while_it_waits_to_start_again_starts_again() -> None:
    """A greenlet can be killed at any moment: twice in a row is no worse than once."""
    lives = count(1)
    lived = threading.Event()

    class KilledAtFirst(threading.Event):
        killed = False

        def wait(self, timeout: float | None = None) -> bool:
            if timeout is not None and not self.killed:
                self.killed = True
                raise SystemExit
            return super().wait(timeout)

    def body(thread: WatchedThread) -> None:
        if next(lives) == 1:
            raise SystemExit
        lived.set()
        thread.stopping.wait()

    thread = WatchedThread("relay", body)
    thread.stopping = KilledAtFirst()
    thread.start()
    assert lived.wait(10)
    assert thread.deaths == 2
    thread.stop(10)
