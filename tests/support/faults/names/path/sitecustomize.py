"""Answers lookups of one name with 127.0.0.1, as soon as a file is not there.

It stands in for the C function, which both Python's `socket` and gevent's resolver call.
"""

import _socket
import os
from time import sleep  # the real one, whatever gevent does to the module later
from typing import Any

NAME, HANGS, ASKED = (os.environ.get(f"TESTS_NAME{part}", "") for part in ("", "_HANGS", "_ASKED"))
real = _socket.getaddrinfo


def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    if name != NAME:
        return real(host, *arguments, **options)
    with open(ASKED, "a") as asked:
        asked.write(".")
    while os.path.exists(HANGS):
        sleep(0.02)
    return real("127.0.0.1", *arguments, **options)


if NAME:
    _socket.getaddrinfo = getaddrinfo
