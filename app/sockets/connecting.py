"""How a connection is made to a name that has several addresses."""

import socket
from collections.abc import Sequence

from app.sockets.names import Address
from app.sockets.timed import left_s


def connected(addresses: Sequence[Address], deadline: float) -> socket.socket:
    """A connection to the first address that answers, by the deadline (monotonic). Raises OSError.

    One that is silent has its share of the time, and no more: often IPv6 is announced and does not work.
    """
    fault = OSError("no address")
    for place, address in enumerate(addresses):
        share_s = left_s(deadline) / (len(addresses) - place)
        try:
            return _connect(address, share_s)
        except OSError as error:
            fault = error
    raise fault


def _connect(address: Address, timeout_s: float) -> socket.socket:
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(timeout_s)
        sock.connect(where)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a request may be several writes
    except BaseException:
        sock.close()
        raise
    return sock
