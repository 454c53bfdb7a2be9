"""Threads that live whatever happens in them."""

import threading
from itertools import count

from app.threads import UNWELL_S, WatchedThread
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
