"""A worker that is told to end while it starts, before gunicorn listens to signals."""

import os
import signal

from gunicorn_worker import Worker


class Interrupted(Worker):
    told = signal.SIGTERM

    def patch(self) -> None:
        os.kill(os.getpid(), self.told)
        super().patch()


class Quit(Interrupted):
    told = signal.SIGQUIT
