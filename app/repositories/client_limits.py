"""CLIENT_LIMIT: how many requests each client has made. By the clock of Redis, for all processes together."""

from collections.abc import Sequence

from app.domain.budget import Budget
from app.errors import TooManyRequests
from app.repositories.keys import CLIENT_LIMITS, Names
from app.repositories.scripts import CountRequest
from app.repositories.users import seconds
from app.storage.storage import Storage


class ClientLimits:
    """Counts requests; several limits hold together. Without a limit nothing is asked of Redis."""

    def __init__(self, storage: Storage, names: Names, limits: Sequence[Budget]) -> None:
        self._storage = storage
        self._names = names
        self._limits = limits
        self._numbers = [number for limit in limits for number in (limit.amount, limit.window_ms)]

    def count(self, client: str) -> None:
        """Counts a request of this client: the name of its API key, or its IP address.

        Raises TooManyRequests, having counted nothing, and StorageUnavailable.
        """
        if not self._limits:
            return
        prefix = f"{CLIENT_LIMITS}:{{{self._names.client(client)}}}"  # one slot, and no name in clear
        keys = [f"{prefix}:{limit.amount}/{limit.window_s}" for limit in self._limits]
        wait_ms: int = self._storage.run(CountRequest(counters=keys, limits=self._numbers))
        if wait_ms:
            raise TooManyRequests("CLIENT_LIMIT is used up", seconds(wait_ms))
