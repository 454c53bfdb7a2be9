"""Names that lead where a test wants, and addresses that are silent."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from app.sockets.names import Address, look_up

SILENT = "127.0.0.2"


def leading_to(*addresses: str) -> Callable[[str, int], Sequence[Address]]:
    """A look-up that finds these, whatever it is asked for."""
    return lambda _, port: [found for address in addresses for found in look_up(address, port)]


@contextmanager
def silence(port: int) -> Iterator[None]:
    """At SILENT nobody answers who connects to this port, as behind a firewall that drops what comes: the
    system drops what is more than a listener holds."""
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.socket())
        full.bind((SILENT, port))
        full.listen(0)
        for _ in range(3):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((SILENT, port))
        yield
