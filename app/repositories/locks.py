"""Work over all shards that one process does at a time, such as a sweep."""

from app.errors import StorageUnavailable
from app.repositories.scripts import HoldLock
from app.storage.storage import Storage


def hold(storage: Storage, lock: str, owner: str, ttl_ms: int) -> bool:
    """Takes or keeps the lock, 0 lets it go. Returns whether the owner may do the work: while the master of a
    cluster that has the lock is away everybody may, so the work must bear to be done twice."""
    try:
        return bool(storage.run(HoldLock(lock, owner, ttl_ms)))
    except StorageUnavailable as error:
        if not error.is_away:
            raise
        return True
