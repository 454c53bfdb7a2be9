"""50 greenlets start one watched thread at once; it lives once."""

from gevent import monkey

monkey.patch_all()

import gevent

from app.threads import WatchedThread

lives: list[str] = []


def body(thread: WatchedThread) -> None:
    lives.append(thread.name)
    thread.stopping.wait()


thread = WatchedThread("map", body)
gevent.joinall([gevent.spawn(thread.start) for _ in range(50)], timeout=5)
assert lives == ["map"], len(lives)
thread.stop(5)
assert not thread.alive
