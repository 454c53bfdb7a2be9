"""The service without HTTP, in a process whose stdout is a full disk: registers addresses and mails them.

    python -m tests.support.mailing REPORT ADDRESS...

Keeps in the file REPORT what its threads are like:
{"unwell": [names that ever were], "deaths": {name: count}}.
Ends when standard input does.
"""

import json
import os
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from app import create_app
from app.container import Container
from app.domain.address import Address
from app.domain.registration import Cause, Draft
from app.domain.service import Service

EVERY_S = 0.2


def main(report: str, *addresses: str) -> None:
    container: Container = create_app().extensions["cedula"]
    os.dup2(os.open("/dev/full", os.O_WRONLY), sys.stdout.fileno())
    container.messaging.start()
    for address in addresses:
        container.registration.register(
            Draft(Address.parse(address), "t0ken", "en", Service()), Cause("r1"), awaited=False
        )
    ended = threading.Event()
    watcher = threading.Thread(target=watch, args=(container, Path(report), ended))
    watcher.start()
    sys.stdin.read()
    ended.set()
    watcher.join()
    container.stop()


def watch(container: Container, report: Path, ended: threading.Event) -> None:
    """Keeps the report up to date."""
    unwell: set[str] = set()
    while not ended.wait(EVERY_S):
        unwell.update(thread.name for thread in container.messaging.threads if thread.fault)
        deaths: Counter[str] = Counter()
        for thread in container.messaging.threads:
            deaths[thread.name] += thread.deaths
        found: dict[str, Any] = {"unwell": sorted(unwell), "deaths": deaths}
        new = report.with_suffix(".new")
        new.write_text(json.dumps(found))
        new.replace(report)


if __name__ == "__main__":
    main(*sys.argv[1:])
