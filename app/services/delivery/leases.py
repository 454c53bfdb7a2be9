"""The leases that this process holds: who is mailing which address from here.

Promise: a lease that is `ours` here has not ended in Redis.
"""

import time
from collections.abc import Callable

from app.errors import StorageUnavailable
from app.repositories.outbox import Outbox

RENEW_AFTER = 1 / 3
"""Of a lease's time: two renewals may fail before it ends."""


class Leases:
    """Keeps leases alive while their mails are under way, and knows which are still ours.

    Times are monotonic seconds from before Redis was asked, so a lease never ends here later than there.
    """

    def __init__(self, outbox: Outbox, clock: Callable[[], float] = time.monotonic) -> None:
        self._outbox = outbox
        self._clock = clock
        self._held: dict[str, tuple[str, float]] = {}  # owner -> user id, time leased or last renewed
        self.lease_s = outbox.lease_ms / 1000

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, owner: str, user_id: str, leased_at: float) -> None:
        """Keeps this lease alive from now on."""
        self._held[owner] = user_id, leased_at

    def drop(self, owner: str) -> None:
        """Keeps this lease alive no longer: it was released, or may run out."""
        self._held.pop(owner, None)

    def ours(self, owner: str) -> bool:
        """False when the lease may have ended. A process that slept, or was cut off from Redis, finds out
        here, before it sends a mail that another process has overtaken."""
        held = self._held.get(owner)
        return held is not None and self._clock() < held[1] + self.lease_s

    def fresh(self, leased_at: float) -> bool:
        """A lease taken at that time needs no renewal yet."""
        return self._clock() < leased_at + self.lease_s * RENEW_AFTER

    def renew(self) -> None:
        """Renews every lease that has used up a third of its time. Raises StorageUnavailable; the lease that
        could not be renewed then comes last, so that those of other masters have their turn."""
        for owner, (user_id, leased_at) in self._held.copy().items():
            if self.fresh(leased_at) or owner not in self._held:
                continue
            renewed_at = self._clock()
            try:
                ours = self._outbox.renew(user_id, owner)
            except StorageUnavailable as error:
                if not error.of_one_key:
                    if (held := self._held.pop(owner, None)) is not None:
                        self._held[owner] = held
                    raise
                continue  # this lease ends by itself, and the others are renewed
            if owner not in self._held:  # dropped while Redis was asked
                continue
            if ours:
                self._held[owner] = user_id, renewed_at
            else:
                self.drop(owner)
