"""A program: posts two events under gevent, as a worker does. Prints what each came to and how long it took,
and how many threads are left.

python -m tests.support.faults.post_under_gevent TIMEOUT_S URL [CA_FILE]
"""

from gevent import monkey

monkey.patch_all()

import ssl  # noqa: E402 gevent first
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402

from app.domain.service import Endpoint  # noqa: E402
from app.webhook.webhooks import NotTaken, Webhooks  # noqa: E402
from tests.support.events import SECRET, event  # noqa: E402


def main(timeout_s: float, url: str, ca_file: str | None) -> None:
    webhooks = Webhooks(timeout_s, tls=ssl.create_default_context(cafile=ca_file))
    for turn in range(2):
        began, code = time.monotonic(), "taken"
        try:
            webhooks.post(Endpoint(url, (SECRET,)), event(turn))
        except NotTaken as fault:
            code = fault.code
        print(f"{time.monotonic() - began:.2f}", code)  # noqa: T201 its answer
    webhooks.close()
    print(threading.active_count())  # noqa: T201 likewise


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
