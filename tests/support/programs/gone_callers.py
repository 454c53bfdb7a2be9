"""Callers that are killed while they wait: what was not sent is never sent. Argument: REDIS_URL."""

from gevent import monkey

monkey.patch_all()

import sys

import gevent
import redis

from tests.support.storage import line_to
from tests.support.waiting import wait_until

line, other = line_to(sys.argv[1]), redis.Redis.from_url(sys.argv[1])
slow = gevent.spawn(line.call, [("BLPOP", "cedula:nothing", "1")])
wait_until(lambda: other.info("clients")["blocked_clients"] == 1, 5, "it is under way")
late = gevent.spawn(line.call, [("SET", "cedula:late", "1", "PX", 1000)])
gevent.sleep(0)  # it waits now
late.kill()
assert slow.get(timeout=5) == [None]
assert line.call([("EXISTS", "cedula:late")]) == [0]
