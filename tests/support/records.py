"""Reads what the service has stored, as a process with the same keys does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.domain.address import Address
from app.domain.service import DEFAULT
from app.repositories.keys import SEALED, Names, UserKeys
from app.repositories.records import Sealer
from app.storage.storage import Storage
from tests.support.scan import Client


@dataclass(frozen=True)
class Stored:
    """What is sealed in a record. `service`: with ` test` behind the id of a test service."""

    service: str
    email: str
    token: str
    number: str
    locale: str


class Records:
    """The records of one service in one store, opened with its secrets (none: stored in clear)."""

    def __init__(
        self, client: Client | Storage, *secrets: str, index_key: str = "", service: str = DEFAULT
    ) -> None:
        ask: Any = client.command if isinstance(client, Storage) else client.execute_command
        self._ask: Callable[..., Any] = ask
        self._names = Names(index_key or (secrets[0] if secrets else None))
        self._sealer = Sealer(secrets)
        self._service = service

    def keys(self, address: str) -> UserKeys:
        """The keys of an address, whether it is registered or not."""
        return self._names.user(self._service, Address.parse(address))

    @staticmethod
    def id_of(address: str, service: str = DEFAULT) -> str:
        """The user id of an address where no key names anything."""
        return Names(None).user(service, Address.parse(address)).user_id

    def of(self, address: str) -> Stored | None:
        """What is stored for an address; None where nothing is. Raises SealBroken."""
        keys = self.keys(address)
        parts = self._ask("HMGET", keys.user, *SEALED)
        if parts[0] is None:
            return None
        opened = self._sealer.open(b"".join(part or b"" for part in parts), keys.user_id).decode()
        service, locale, number, email, token = opened.split("\n", 4)
        return Stored(service=service, email=email, token=token, number=number, locale=locale)

    def number_of(self, address: str) -> str:
        """The live number of an address that is registered."""
        stored = self.of(address)
        assert stored is not None, "nothing is stored for the address"
        return stored.number

    def addresses_in_shard(self, shard: int, count: int) -> list[str]:
        """So many addresses that all belong to one shard."""
        found: list[str] = []
        candidate = 0
        while len(found) < count:
            address = f"neighbour{candidate}@example.com"
            if self.keys(address).shard == shard:
                found.append(address)
            candidate += 1
        return found
