"""The leases that this process holds: who is mailing which address from here."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.repositories.outbox import Outbox

RENEW_AFTER = 1 / 3
"""Of a lease's time: two renewals may fail before it ends."""


@dataclass(slots=True)
class _Held:
    user_id: str
    renewed_at: float  # before Redis was asked, so never later than Redis counts from


class Leases:
    """Keeps leases alive while their mails are under way, and knows which are still ours."""

    def __init__(self, outbox: Outbox, clock: Callable[[], float] = time.monotonic) -> None:
        self._outbox = outbox
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()
        self.lease_s = outbox.lease_ms / 1000

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, owner: str, user_id: str, since: float) -> None:
        """`since`: from before Redis was asked for the lease, by this process's clock."""
        with self._lock:
            self._held[owner] = _Held(user_id, since)

    def drop(self, owner: str) -> None:
        with self._lock:
            self._held.pop(owner, None)

    def ours(self, owner: str) -> bool:
        """False when the lease may have ended: a process that was stopped or cut off from Redis finds out
        here, before it lets out a mail that somebody else may have overtaken."""
        held = self._held.get(owner)
        return held is not None and self._clock() < held.renewed_at + self.lease_s

    def fresh(self, since: float) -> bool:
        """A lease from then needs no renewal yet."""
        return self._clock() < since + self.lease_s * RENEW_AFTER

    def renew(self) -> None:
        """Renews every lease that has used up a third of its time. Raises StorageUnavailable."""
        with self._lock:
            old = [(owner, held) for owner, held in self._held.items() if not self.fresh(held.renewed_at)]
        for owner, held in old:
            asked_at = self._clock()
            if owner not in self._held:
                continue
            if self._outbox.renew(held.user_id, owner):
                held.renewed_at = asked_at
            else:
                self.drop(owner)
