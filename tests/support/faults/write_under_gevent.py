"""A program: writes a megabyte under gevent, to a server that reads slowly. Prints how long it took, and what
came of it.

python -m tests.support.faults.write_under_gevent TIMEOUT_S PORT [CA_FILE]
"""

from gevent import monkey

monkey.patch_all()

import socket  # noqa: E402 gevent first
import ssl  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

from app.sockets.timed import TimedSocket  # noqa: E402


def main(timeout_s: float, port: int, ca_file: str | None) -> None:
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    plain.connect(("127.0.0.1", port))
    timed = TimedSocket(plain, time.monotonic() + 30)
    if ca_file:
        timed.encrypt(ssl.create_default_context(cafile=ca_file), "localhost")
    timed.begin(timeout_s)
    began, outcome = time.monotonic(), "written"
    try:
        timed.write(b"x" * 1_000_000)
    except TimeoutError:
        outcome = "timeout"
    print(f"{time.monotonic() - began:.2f}", outcome)  # noqa: T201 its answer


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
