"""The receivers of events: does each name lead where events may go, does it answer, is its certificate good.
Posts nothing."""

import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from app.cli.doctor.findings import Area, Finding
from app.cli.doctor.services import told
from app.directory.reading import Reading
from app.domain.service import Endpoint, Service
from app.webhook.addresses import Receiver
from app.webhook.webhooks import NotTaken, Webhooks

EVENTS = Area("events")

AT_A_TIME: Final = 32
TIMEOUT_S: Final = 10.0
"""As long as an event waits."""

BEGIN_WITHIN_S: Final = 20.0
"""A receiver whose turn has not come by then is not looked at: those before it do not answer."""

NOT_LOOKED_AT: Final = "not looked at"

NOT_DELIVERED: Final = {
    "unknown host": (
        "The name in `events_url` is unknown.",
        "Correct it, or check the DNS of this machine.",
    ),
    "private address": (
        "The name in `events_url` leads to a private address.",
        "If the receiver is inside our network, set `events_private = true`; else have its DNS mended.",
    ),
    "not encrypted": (
        "`events_url` says http://, and its name does not lead to this machine.",
        "Write https://.",
    ),
    "refused": (
        "Nothing listens at the host and port in `events_url`.",
        "Start the receiver, or correct host and port.",
    ),
    "unreachable": (
        "There is no way to the address in `events_url`.",
        "Check the network and the routes of this machine; it may have no IPv6.",
    ),
    "timeout": (
        "The receiver does not answer in time.",
        "Check port and firewall; from here, the way out must be open without a proxy.",
    ),
    "TLS failed": (
        "The TLS handshake with the receiver fails.",
        "Check the port in `events_url`: it must speak TLS 1.2 or newer.",
    ),
    "certificate expired": (
        "The certificate of the receiver has expired.",
        "Have it renewed there.",
    ),
    "certificate for another name": (
        "The certificate of the receiver is for another name.",
        "Write a name that it has into `events_url`.",
    ),
    "certificate refused": (
        "The certificate of the receiver is not trusted.",
        "It must show its whole chain; SSL_CERT_FILE can name a file with authorities to trust.",
    ),
}
"""By the code of the fault (`app.webhook.answers`): what is wrong, and the cure."""


def examine(
    reading: Reading, webhooks: Webhooks | None = None, begin_within_s: float = BEGIN_WITHIN_S
) -> Iterator[Finding]:
    """Connects to each receiver as for an event, once for all services that share it. One finding for each
    fault, with all the services that have it."""
    probed = webhooks or Webhooks(TIMEOUT_S)
    begin_until = time.monotonic() + begin_within_s

    def code(endpoint: Endpoint) -> str:
        if time.monotonic() > begin_until:
            return NOT_LOOKED_AT
        try:
            probed.probe(endpoint)
        except NotTaken as fault:
            return fault.code
        return ""

    told_of: dict[Receiver, list[Service]] = defaultdict(list)
    endpoints: dict[Receiver, Endpoint] = {}
    for service in reading.services:
        if service.events:
            receiver = Receiver.of(service.events)
            told_of[receiver].append(service)
            endpoints[receiver] = service.events
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        codes = list(threads.map(code, endpoints.values()))
    by_code: dict[str, list[Service]] = defaultdict(list)
    for receiver, found in zip(endpoints, codes, strict=True):
        by_code[found] += told_of[receiver]
    for found, services in sorted(by_code.items()):
        yield _finding(found, services)


def _finding(code: str, services: list[Service]) -> Finding:
    if not code:
        return EVENTS.ok(f"The receivers can be reached, and events may go there: {told(services)}.")
    if code == NOT_LOOKED_AT:
        return EVENTS.note(f"Not looked at, as too many others do not answer: {told(services)}.")
    other = "The receiver closes the connection at once.", "See its log, or that of the proxy before it."
    says, cure = NOT_DELIVERED.get(code, other)
    return EVENTS.problem(f"No event is delivered for: {told(services)}. {says}", cure)
