"""Finds services by their id, and callers by their key."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from typing import Self

from app.directory.reading import Reading
from app.domain.service import DEFAULT, Caller, Service

DIGEST_BYTES = 16


class Directory:
    """The services in force, and whose a key is.

    It never changes: a reload makes another. So nobody should hold a directory, or a Service, for longer than
    one request or one mail.

    Keys are held by a digest under a key that this process has drawn, so that the time of a look-up tells
    nothing of them, and a thousand services cost what one does.
    """

    def __init__(
        self, services: Iterable[Service], keys: Mapping[str, Caller], *, closed: bool = False
    ) -> None:
        """`keys`: by the SHA-256 of the key in hexadecimal. `closed`: without any of them nobody may call;
        else everybody is `default`."""
        self._services = {service.id: service for service in services}
        self._secret = secrets.token_bytes(32)
        self._callers = {self._place(digest): (digest, caller) for digest, caller in keys.items()}
        self.anyone = None if keys or closed else Caller(self._services[DEFAULT])
        """Who calls without a key; None where everybody needs one."""
        self.listens = any(service.events for service in self._services.values())
        """Some service is told what becomes of its registrations."""

    @classmethod
    def of(cls, reading: Reading) -> Self:
        """What was read, and is not wrong."""
        return cls(reading.services, reading.keys, closed=reading.closed)

    @property
    def services(self) -> list[Service]:
        """Those that somebody may call, by their ids."""
        callers = [caller for _, caller in self._callers.values()] + ([self.anyone] if self.anyone else [])
        found = {caller.service.id: caller.service for caller in callers}
        return [found[service_id] for service_id in sorted(found)]

    def get(self, service_id: str) -> Service | None:
        return self._services.get(service_id)

    def caller(self, key: str) -> Caller | None:
        """Whose key this is; None for nobody's."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        found = self._callers.get(self._place(digest))
        return found[1] if found and hmac.compare_digest(found[0], digest) else None

    def _place(self, digest: str) -> bytes:
        return hashlib.blake2b(digest.encode(), digest_size=DIGEST_BYTES, key=self._secret).digest()
