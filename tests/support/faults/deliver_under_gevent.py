"""A program: delivers events under gevent, as a worker does, and ends. Prints how many couriers there were,
and how long the end took.

python -m tests.support.faults.deliver_under_gevent
"""

from gevent import monkey

monkey.patch_all()

import time  # noqa: E402 gevent first

from app.domain.registration import Event  # noqa: E402
from app.services.events import EventService  # noqa: E402
from tests.support.couriers import SHOP, Counted, Passed, Posts, WaitingEvents, queue  # noqa: E402
from tests.support.waiting import wait_until  # noqa: E402

USERS = 8


def be_slow(_: Event) -> None:
    time.sleep(0.2)


def main() -> None:
    events, posts = WaitingEvents(), Posts(be_slow)
    service = EventService(
        events,
        Passed(),
        posts,
        start="1",
        service=lambda _: SHOP,
        listening=lambda: True,
        metrics=Counted(),
    )
    service.start()
    for number in range(USERS):
        events.add(queue(number))
        service.noticed(*queue(number))
    wait_until(lambda: len(posts.posted) == USERS, 10)
    couriers = len(service.threads) - 1
    began = time.monotonic()
    service.stop()
    print(couriers, f"{time.monotonic() - began:.2f}")  # noqa: T201 its answer


if __name__ == "__main__":
    main()
