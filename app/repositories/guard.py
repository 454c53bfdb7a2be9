"""Is this Redis ours, and does it take writes?"""

from app.errors import WrongIndexKey
from app.repositories.keys import KEY_CHECK, NAMES_VERSION, READINESS, Names
from app.repositories.records import Sealer
from app.storage.storage import Storage

READINESS_TTL_S = 60


def mark(names: Names, *, seals: bool) -> bytes:
    """What a process with this index key leaves in Redis: enough to tell its data from another's, and from
    that of a version which named things otherwise."""
    return f"{names.check_value()}:{'sealed' if seals else 'clear'}:{NAMES_VERSION}".encode()


class Guard:
    """Keeps a process from writing into data that was made with another index key.

    The first process leaves a check value in Redis; every later one compares. A Redis that was away at
    the start is compared as soon as it answers, before the first registration.
    """

    def __init__(self, storage: Storage, names: Names, sealer: Sealer) -> None:
        self._storage = storage
        self._value = mark(names, seals=sealer.seals)
        self.passed = False  # Redis has answered, and its data is ours; only `check_again` says so

    def check(self) -> None:
        """Raises WrongIndexKey or StorageUnavailable; costs nothing once it has passed."""
        if not self.passed:
            self.check_again()

    def check_again(self) -> None:
        """Compares anew, and leaves the value where Redis has lost it. Raises as `check`; what was known
        stays where Redis does not answer."""
        if not self._storage.command("SET", KEY_CHECK, self._value, "NX"):
            found = self._storage.command("GET", KEY_CHECK)
            if found is not None and found != self._value:
                self.passed = False
                if not found.endswith(b":%d" % NAMES_VERSION):
                    raise WrongIndexKey(
                        "The data in Redis was written by a version that named things otherwise: see the "
                        "page docs/operate.md, Versions of the layout."
                    )
                raise WrongIndexKey(
                    "The data in Redis was written with another INDEX_KEY (or SECRET_KEY without "
                    "INDEX_KEY), or it was sealed and this process has no SECRET_KEY, or the reverse."
                )
        self.passed = True

    def ready(self) -> None:
        """Makes a small write on some masters of a cluster. Raises StorageUnavailable when none takes it."""
        self.check()
        self._storage.any_of([("SET", key, b"1", "EX", READINESS_TTL_S) for key in READINESS])
