"""Finds services by their id, and callers by their key."""

import hashlib
import hmac
import secrets

from app.directory.reading import Reading
from app.domain.service import DEFAULT, Caller, Service

KEY_PREFIX = "cedula_"
"""So that people and secret scanners know what they have found."""


def new_key() -> str:
    """A fresh API key: 256 bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """SHA-256 in hexadecimal. A key has 256 random bits, so a slow hash would protect nothing more."""
    return hashlib.sha256(key.encode()).hexdigest()


class Directory:
    """The services in force, and whose a key is.

    It never changes: a reload makes another. So hold a directory, or a Service, for one request or one mail
    only.

    Keys are found by a digest that is keyed with a secret of this process: the time of a look-up tells
    nothing of them, and a thousand services cost what one does.
    """

    def __init__(self, reading: Reading) -> None:
        """`reading`: one in which nothing is wrong."""
        self._services = {service.id: service for service in reading.services}
        self._secret = secrets.token_bytes(32)
        self._callers = {self._place(digest): (digest, caller) for digest, caller in reading.keys.items()}
        self.anyone = None if reading.keys or reading.closed else Caller(self._services[DEFAULT])
        """Who calls without a key; None where everybody needs one."""
        self.listens = any(service.events for service in self._services.values())
        """Some service is told what becomes of its registrations."""

    @property
    def services(self) -> list[Service]:
        """Those that somebody may call for, sorted by id."""
        callers = [caller for _, caller in self._callers.values()] + ([self.anyone] if self.anyone else [])
        found = {caller.service.id: caller.service for caller in callers}
        return [found[service_id] for service_id in sorted(found)]

    def get(self, service_id: str) -> Service | None:
        return self._services.get(service_id)

    def caller(self, key: str) -> Caller | None:
        """Whose key this is; None for nobody's."""
        presented = digest(key)
        found = self._callers.get(self._place(presented))
        return found[1] if found and hmac.compare_digest(found[0], presented) else None

    def _place(self, digest: str) -> bytes:
        return hashlib.blake2b(digest.encode(), digest_size=16, key=self._secret).digest()
