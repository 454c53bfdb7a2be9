"""32 greenlets with a command each, at once: one write and one read. Argument: REDIS_URL."""

from gevent import monkey

monkey.patch_all()

import sys

import gevent
import redis

from tests.support.storage import line_to

line, other = line_to(sys.argv[1]), redis.Redis.from_url(sys.argv[1])


def reads() -> int:
    return int(other.info("stats")["total_reads_processed"])


line.call([("PING",)])
before = reads()
callers = [gevent.spawn(line.call, [("ECHO", n)]) for n in range(32)]
gevent.joinall(callers, timeout=5)
assert [caller.value for caller in callers] == [[str(n).encode()] for n in range(32)]
assert reads() - before == 2, "theirs, and that of the question"
