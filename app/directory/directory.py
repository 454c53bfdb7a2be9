"""The services in force, and whose a key is."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from email.utils import parseaddr
from pathlib import Path
from typing import Self

from app.config import Settings
from app.domain.service import DEFAULT, Caller, Service
from app.errors import SettingsError

DIGEST_BYTES = 16

TEMPLATES = (".html", ".txt", ".toml")
"""Ends of the names of files that are mail templates. Others in their folder are nobody's business."""


class Directory:
    """Finds services by their id, and callers by their key.

    Keys are held by a digest under a key that this process has drawn, so that the time of a look-up tells
    nothing of them, and a thousand services cost what one does.
    """

    def __init__(self, services: Iterable[Service], keys: Mapping[str, Caller]) -> None:
        """`keys`: by the SHA-256 of the key in hexadecimal. Without any, every caller is `default`."""
        self._secret = secrets.token_bytes(32)
        self._services = {service.id: service for service in services}
        self.default = self._services.get(DEFAULT, Service())
        self._callers = {self._place(digest): (digest, caller) for digest, caller in keys.items()}

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The one service that the environment describes."""
        default = default_service(settings)
        return cls([default], {key.sha256: Caller(default, key.name) for key in settings.api_keys})

    @property
    def open(self) -> bool:
        """Nobody needs a key."""
        return not self._callers

    def get(self, service_id: str) -> Service | None:
        return self._services.get(service_id)

    def caller(self, key: str) -> Caller | None:
        """Whose key this is; None for nobody's."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        found = self._callers.get(self._place(digest))
        return found[1] if found and hmac.compare_digest(found[0], digest) else None

    def _place(self, digest: str) -> bytes:
        return hashlib.blake2b(digest.encode(), digest_size=DIGEST_BYTES, key=self._secret).digest()


def default_service(settings: Settings) -> Service:
    """The service that the environment describes."""
    name, address = parseaddr(settings.mail_default_sender)
    return Service(
        name=name or address.rpartition("@")[2],
        sender=settings.mail_default_sender,
        locale=settings.default_locale,
        templates=templates(settings.mail_templates),
        ttl_s=settings.number_ttl_s,
        address_limit=settings.address_limit,
        verify_limit=settings.verify_limit,
        client_limit=settings.client_limit,
    )


def templates(folder: str) -> dict[str, str]:
    """The mail templates in a folder, by file name; empty = none. Raises SettingsError."""
    found = {}
    for path in sorted(Path(folder).iterdir()) if folder else ():
        if path.suffix in TEMPLATES:
            try:
                found[path.name] = path.read_text("utf-8")
            except (OSError, UnicodeError) as error:
                raise SettingsError(f"{path.name}: Must be a readable file in UTF-8.") from error
    return found
