"""How a connection to a receiver is made: to an address that was checked, and to no other."""

import socket
import ssl
import time
from collections.abc import Sequence

from app.webhook.addresses import Receiver
from app.webhook.names import Address, Names
from app.webhook.stream import Stream


def opened(receiver: Receiver, names: Names, tls: ssl.SSLContext, deadline: float) -> Stream:
    """A connection, by the deadline (monotonic). Raises NotTaken, TimeoutError, OSError.

    The name is looked up once, and the addresses that were checked are connected to: it may have others a
    moment later (DNS rebinding). Where one of several is forbidden, all are.
    """
    addresses = names.addresses(receiver.host, receiver.port, deadline - time.monotonic())
    for *_, where in addresses:
        receiver.check(str(where[0]))
    stream = Stream(_connected(addresses, deadline), deadline)
    try:
        if receiver.secure:
            stream.encrypt(tls, receiver.host)
    except BaseException:
        stream.end()
        raise
    return stream


def _connected(addresses: Sequence[Address], deadline: float) -> socket.socket:
    """To the first address that answers. One that is silent has its share of the time, and no more: often
    IPv6 is announced and does not work."""
    fault = OSError("no address")
    for place, address in enumerate(addresses):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("connecting took too long")
        try:
            return _connect(address, left_s / (len(addresses) - place))
        except OSError as error:
            fault = error
    raise fault


def _connect(address: Address, timeout_s: float) -> socket.socket:
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(timeout_s)
        sock.connect(where)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # head and body are two writes
    except BaseException:
        sock.close()
        raise
    return sock
