"""The only caller is killed while its answer drips: its connection ends long before a time-out is over.

The next caller has its answer over another one. Argument: REDIS_URL.
"""

from gevent import monkey

monkey.patch_all()

import sys

import gevent
import redis

from tests.support.faults.proxy import Proxy
from tests.support.storage import line_to
from tests.support.waiting import wait_until

other = redis.Redis.from_url(sys.argv[1])
other.config_resetstat()
with Proxy(other.connection_pool.connection_kwargs["port"]) as proxy:
    line = line_to(f"redis://127.0.0.1:{proxy.port}/0", timeout_s=20)
    (number,) = line.call([("CLIENT", "ID")])
    with proxy.dripping(0.2):
        caller = gevent.spawn(line.call, [("ECHO", "x" * 1000)])
        wait_until(lambda: "cmdstat_echo" in other.info("commandstats"), 5, "the answer is on its way")
        caller.kill()
        wait_until(
            lambda: all(client["id"] != str(number) for client in other.client_list()),
            10,
            "its connection ends",
        )
    (another,) = line.call([("CLIENT", "ID")])
    assert another != number
