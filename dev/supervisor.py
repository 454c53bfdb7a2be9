"""Programs that live and end together: started one after the other, stopped in the opposite order.

They end by SIGINT (Ctrl-C), SIGTERM or SIGHUP, when any of them ends by itself, and, by the kernel's
doing, when this process is killed. Linux only.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

READY_WITHIN_S = 60
"""For one program to answer; Valkey may have a long append-only file to read."""

POLL_S = 0.05
"""Between two questions whether a program answers yet."""

STOP_WITHIN_S = 60
"""For one program to end when asked; above gunicorn's graceful timeout, so only a stuck one is killed."""

STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
AWAITED_SIGNALS = STOP_SIGNALS | {signal.SIGCHLD}

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent is gone."""

_libc = ctypes.CDLL(None)


class Ended(Exception):
    """A program ended by itself or never answered; the message says which."""


class Stopped(Exception):
    """A signal asked for the end."""


@dataclass(frozen=True)
class Program:
    """One program that runs beside the others."""

    name: str
    command: Sequence[str | Path]
    is_ready: Callable[[], bool]
    """Whether it answers by now."""
    environment: Mapping[str, str] | None = None
    """None: as this process."""
    keeps: Sequence[int] = ()
    """File descriptors that it inherits."""


def run_together(programs: Sequence[Program], folder: Path, when_ready: Callable[[], None]) -> int:
    """Run the programs in that folder until one of them ends or a signal comes; nothing is left running.

    Returns the exit status: 0 when a signal asked for the end, 1 when a program ended by itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED_SIGNALS)
    running: list[Process] = []
    try:
        for program in programs:
            running.append(Process(program, folder))
            wait_until_ready(running)
        when_ready()
        while True:
            wait_for_signal(running, None)
    except Stopped:
        return 0
    except Ended as ended:
        print(f"{ended} Stopping the rest.", file=sys.stderr, flush=True)
        return 1
    finally:
        for process in reversed(running):
            process.stop()


def wait_until_ready(running: Sequence["Process"]) -> None:
    """Return when the last of the programs answers; raises Ended or Stopped when that does not come."""
    newest = running[-1].program
    deadline = time.monotonic() + READY_WITHIN_S
    while not newest.is_ready():
        wait_for_signal(running, POLL_S)
        if time.monotonic() > deadline:
            raise Ended(f"{newest.name} does not answer within {READY_WITHIN_S} seconds.")


def wait_for_signal(running: Sequence["Process"], timeout_s: float | None) -> None:
    """Wait for one signal or the timeout; raises Stopped, or Ended when a program has ended by itself."""
    if next_signal(timeout_s) in STOP_SIGNALS:
        raise Stopped
    for process in running:
        if end := process.end():
            raise Ended(f"{process.program.name} ended by itself ({end}).")


def next_signal(timeout_s: float | None) -> int | None:
    """The next signal, or None after the timeout. The signals are blocked, so none is ever missed."""
    if timeout_s is None:
        return signal.sigwait(AWAITED_SIGNALS)
    info = signal.sigtimedwait(AWAITED_SIGNALS, timeout_s)
    return info.si_signo if info else None


class Process:
    """A program's process, the leader of its own process group: Ctrl-C reaches it through `stop` only."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self._process = subprocess.Popen(
            [str(word) for word in program.command],
            cwd=folder,
            env=program.environment,
            stdin=subprocess.DEVNULL,
            pass_fds=program.keeps,
            start_new_session=True,
            preexec_fn=partial(begin, os.getpid()),  # noqa: PLW1509 - this process has one thread
        )

    def end(self) -> str | None:
        """How the process ended, or None while it runs.

        The process is not reaped by this, so its id and its process group stay its own until `stop`.
        """
        state = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if state is None:
            return None
        kind = "exit status" if state.si_code == os.CLD_EXITED else "signal"
        return f"{kind} {state.si_status}"

    def stop(self) -> None:
        """Ask for the end and wait for it, unless Ctrl-C comes again; then kill what is left of the group."""
        os.kill(self._process.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_WITHIN_S
        while self.end() is None and (left_s := deadline - time.monotonic()) > 0:
            if next_signal(left_s) == signal.SIGINT:
                break
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def begin(parent: int) -> None:
    """In a new process, before its program: end when the parent is gone, and take signals again."""
    end_with_parent(parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def end_with_parent(parent: int) -> None:
    """Let the kernel send this process SIGTERM when its parent is gone, however that ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before that
        os._exit(1)
