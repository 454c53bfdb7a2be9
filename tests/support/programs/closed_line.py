"""A line that is closed tells who waits, sent or not, and serves whoever comes later. Argument: REDIS_URL."""

from gevent import monkey

monkey.patch_all()

import sys

import gevent
import redis

from app.storage.faults import Broken
from tests.support.storage import line_to
from tests.support.waiting import wait_until

line, other = line_to(sys.argv[1], timeout_s=60.0), redis.Redis.from_url(sys.argv[1])


def told(call: gevent.Greenlet) -> bool:
    """Whether it may have run."""
    try:
        call.get(timeout=10)
    except Broken as broken:
        return broken.sent
    raise AssertionError("it was answered")


slow = gevent.spawn(line.call, [("BLPOP", "cedula:nothing", "0")])
wait_until(lambda: other.info("clients")["blocked_clients"] == 1, 5, "it is under way")
behind = gevent.spawn(line.call, [("PING",)])
gevent.sleep(0)  # it waits now
line.close()
assert (told(slow), told(behind)) == (True, False)
assert line.call([("PING",)]) == [b"PONG"]
