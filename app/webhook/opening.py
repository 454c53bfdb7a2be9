"""How a connection to a receiver is made: to an address that was checked, and to no other."""

import ssl
import time

from app.sockets.connecting import connected
from app.sockets.names import Names
from app.webhook.addresses import Receiver
from app.webhook.stream import Stream


def opened(receiver: Receiver, names: Names, tls: ssl.SSLContext, deadline: float) -> Stream:
    """A connection, by the deadline (monotonic). Raises NotTaken, TimeoutError, OSError.

    The name is looked up once, and the addresses that were checked are connected to: it may have others a
    moment later (DNS rebinding). Where one of several is forbidden, all are.
    """
    addresses = names.addresses(receiver.host, receiver.port, deadline - time.monotonic())
    for *_, where in addresses:
        receiver.check(str(where[0]))
    stream = Stream(connected(addresses, deadline), deadline)
    try:
        if receiver.secure:
            stream.encrypt(tls, receiver.host)
    except BaseException:
        stream.end()
        raise
    return stream
