"""A request may be killed wherever it waits, as gunicorn does with those that outlast its shutdown."""

import subprocess
import sys

from tests.support.servers import ROOT


def test_a_killed_request_leaves_no_sender_uncounted_and_no_mail_that_it_seems_to_wait_for() -> None:
    """Under gevent, killed while it starts a sender and while it waits for its mail."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.programs.killed_requests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
