"""Finds services by their id, and callers by their key."""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Self

from app.config import Settings
from app.directory.in_force import InForce
from app.directory.reading import Check, Reading, nothing_else
from app.domain.service import DEFAULT, Caller, Service
from app.errors import SettingsError

DIGEST_BYTES = 16


class Directory:
    """The services in force, and whose a key is.

    There is one directory in a process, for as long as it lives. `renew` exchanges what is in it, all at
    once; so who holds a directory always asks the newest, and nobody should hold a Service for longer than
    one request or one mail.

    Keys are held by a digest under a key that this process has drawn, so that the time of a look-up tells
    nothing of them, and a thousand services cost what one does.
    """

    def __init__(
        self,
        services: Iterable[Service],
        keys: Mapping[str, Caller],
        *,
        closed: bool = False,
        again: Callable[[], Reading] | None = None,
    ) -> None:
        """`keys`: by the SHA-256 of the key in hexadecimal. `closed`: without any of them nobody may call;
        else everybody is `default`. `again`: how the services are read anew."""
        self._content = _Content(services, keys, closed)
        self._again = again

    @classmethod
    def read(cls, settings: Settings, check: Check = nothing_else) -> Self:
        """The services of the environment and of SERVICES_FILE. Raises SettingsError."""
        in_force = InForce(settings, check)
        found = in_force.read()
        return cls(found.services, found.keys, closed=found.closed, again=in_force.read)

    def renew(self) -> None:
        """Reads the services anew, in a process that was forked. Where that cannot be, they stay as they
        are."""
        if self._again:
            try:
                found = self._again()
            except SettingsError:
                return
            self._content = _Content(found.services, found.keys, found.closed)

    @property
    def anyone(self) -> Caller | None:
        """Who calls without a key; None where everybody needs one."""
        return self._content.anyone

    @property
    def default(self) -> Service:
        """The service that the environment describes."""
        return self._content.default

    @property
    def services(self) -> Iterable[Service]:
        return self._content.services.values()

    def get(self, service_id: str) -> Service | None:
        return self._content.services.get(service_id)

    def caller(self, key: str) -> Caller | None:
        """Whose key this is; None for nobody's."""
        return self._content.caller(key)


class _Content:
    """What is in a directory; it never changes."""

    def __init__(self, services: Iterable[Service], keys: Mapping[str, Caller], closed: bool) -> None:
        self.services = {service.id: service for service in services}
        self.default = self.services.get(DEFAULT, Service())
        self.anyone = None if keys or closed else Caller(self.default)
        self._secret = secrets.token_bytes(32)
        self._callers = {self._place(digest): (digest, caller) for digest, caller in keys.items()}

    def caller(self, key: str) -> Caller | None:
        digest = hashlib.sha256(key.encode()).hexdigest()
        found = self._callers.get(self._place(digest))
        return found[1] if found and hmac.compare_digest(found[0], digest) else None

    def _place(self, digest: str) -> bytes:
        return hashlib.blake2b(digest.encode(), digest_size=DIGEST_BYTES, key=self._secret).digest()
