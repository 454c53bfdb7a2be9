"""The receivers of events: does each name lead where events may go, does it answer, is its certificate good.

Nothing is posted.
"""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from app.cli.doctor.cures import NOT_DELIVERED
from app.cli.doctor.findings import Area, Finding
from app.cli.doctor.services import told
from app.directory.reading import Reading
from app.domain.service import Endpoint, Service
from app.webhook.webhooks import NotTaken, Webhooks

EVENTS = Area("events")

AT_A_TIME: Final = 10
TIMEOUT_S: Final = 10.0
"""As long as an event waits."""


def examine(reading: Reading, webhooks: Webhooks | None = None) -> Iterator[Finding]:
    """Connects to each receiver as for an event. One finding for each fault, with all the services that have
    it."""
    probed = webhooks or Webhooks(TIMEOUT_S)

    def code(endpoint: Endpoint) -> str:
        try:
            probed.probe(endpoint)
        except NotTaken as fault:
            return fault.code
        return ""

    told_of = {service: service.events for service in reading.services if service.events}
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        codes = list(threads.map(code, told_of.values()))
    by_code: dict[str, list[Service]] = defaultdict(list)
    for service, found in zip(told_of, codes, strict=True):
        by_code[found].append(service)
    for found, services in sorted(by_code.items()):
        yield _finding(found, services)


def _finding(code: str, services: list[Service]) -> Finding:
    if not code:
        return EVENTS.ok(f"What takes the events can be reached, and may be: {told(services)}.")
    says, cure = NOT_DELIVERED.get(
        code, ("The receiver closes the connection at once.", "See its log, or that of the proxy before it.")
    )
    return EVENTS.problem(f"No event is delivered for: {told(services)}. {says}", cure)
