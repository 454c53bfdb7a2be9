"""CLIENT_LIMIT: how many requests each client has made. By the clock of Redis, for all processes together."""

from collections.abc import Sequence

from app.domain.service import Budget
from app.errors import TooManyRequests
from app.repositories.keys import CLIENT_LIMITS, Names
from app.repositories.scripts import CountRequest
from app.repositories.users import seconds
from app.storage.storage import Storage


class ClientLimits:
    """Counts requests; several limits hold together."""

    def __init__(self, storage: Storage, names: Names) -> None:
        self._storage = storage
        self._names = names

    def count(self, client: str, limits: Sequence[Budget]) -> None:
        """Counts a request of this client: a service, an API key or an IP address.

        Raises TooManyRequests, having counted nothing, and StorageUnavailable.
        """
        prefix = f"{CLIENT_LIMITS}:{{{self._names.client(client)}}}"  # one slot, and no name in clear
        keys = [f"{prefix}:{limit.amount}/{limit.window_s}" for limit in limits]
        numbers = [number for limit in limits for number in (limit.amount, limit.window_ms)]
        wait_ms: int = self._storage.run(CountRequest(counters=keys, limits=numbers))
        if wait_ms:
            raise TooManyRequests("CLIENT_LIMIT is used up", seconds(wait_ms))
