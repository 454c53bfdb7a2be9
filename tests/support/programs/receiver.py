"""A receiver of events that now and then does not take one, until it is killed or its parent is gone.

    python -m tests.support.programs.receiver PORT FILE SERVICE...

Writes each request as a line of JSON to FILE, with what it is going to answer, before it answers. That needs
no fsync: what a process has written outlives it, and the machine stays up.
"""

import json
import os
import random
import sys
import time

from tests.support.receivers import TAKEN, Receipt, Receiver, Reply

TROUBLE = (Reply(500), Reply(503), Reply(0), Reply(after_s=0.5))
TROUBLE_RATE = 0.05


def main(port: str, path: str, *services: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, b"\n")  # the line before may have been cut

    def keep(receipt: Receipt) -> None:
        os.write(file, json.dumps(receipt._asdict()).encode() + b"\n")

    Receiver(int(port), *services, keep=keep, choose=choose)
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)


def choose() -> Reply:
    return random.choice(TROUBLE) if random.random() < TROUBLE_RATE else TAKEN


if __name__ == "__main__":
    main(*sys.argv[1:])
