"""Greenlets are killed while their commands are on a line; the line serves the next. Argument: REDIS_URL."""

from gevent import monkey

monkey.patch_all()

import random
import sys

import gevent

from tests.support.storage import line_to

line = line_to(sys.argv[1])
for turn in range(100):
    callers = [gevent.spawn(line.call, [("ECHO", n)]) for n in range(50)]
    if turn % 2:
        gevent.sleep(random.random() / 500)
        gevent.killall(random.sample(callers, 25), block=False)
    else:
        gevent.get_hub().loop.run_callback(callers[0].throw, gevent.GreenletExit)
    gevent.joinall(callers, timeout=5)
    assert all(caller.dead for caller in callers)
    with gevent.Timeout(5):
        assert line.call([("PING",)]) == [b"PONG"]
