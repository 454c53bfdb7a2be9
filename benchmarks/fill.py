"""Registrations past HTTP: many of them, fast, with the service's own scripts and seals."""

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from typing import Any, cast

import redis

from app.domain.address import Address
from app.domain.number import NumberGenerator
from app.domain.registration import Draft
from app.domain.service import DEFAULT, Service
from app.errors import NumberSpaceExhausted
from app.repositories.guard import Guard
from app.repositories.keys import Field, Names
from app.repositories.records import Sealer
from app.repositories.scripts import Register
from app.repositories.users import Users, fresh_token
from app.services.messaging import MessagingService
from app.services.registration import RegistrationService
from app.storage.scripts import SCRIPTS
from app.storage.storage import Storage
from app.telemetry.metrics import Metrics

DIGITS = 10
TOKEN = "t" * 64
BATCH = 500
SHARD = 7
NO_MAIL = cast(MessagingService, None)
"""Nothing here is mailed."""


class Filler:
    """Writes registrations as `register.lua` does, in pipelines, with their mails already sent."""

    def __init__(self, client: redis.Redis, secret: str) -> None:
        self._client = client
        self._names = Names(secret or None)
        self._sealer = Sealer([secret] if secret else [])
        self._numbers = NumberGenerator(DIGITS)

    def fill(self, addresses: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Registers every address; gives it back with its number."""
        script = SCRIPTS[Register]
        sha = self._client.script_load(script.text)
        batch: list[tuple[str, str]] = []
        pipeline = self._client.pipeline(transaction=False)
        for text in addresses:
            address = Address.parse(text)
            keys = self._names.user(DEFAULT, address)
            number = self._numbers.draw(keys.shard)
            digest = self._names.number(number)
            sealed = self._sealer.seal_record(Draft(address, TOKEN, "en", Service()), number, keys.user_id)
            call = Register(
                *keys.mail,
                *keys.announcing,
                *keys.end,
                sends=keys.sends,
                mailbox=keys.mailbox("none"),
                mark=keys.idempotency("none"),
                suppressed=keys.suppressed,
                numbers=[keys.number_prefix + digest],
                id=keys.user_id,
                registration=fresh_token(),
                lease_ms=0,
                life_ms=0,
                prefix=keys.number_prefix,
                limit=0,
                window_ms=0,
                mailbox_limit=0,
                mailbox_window_ms=0,
                fingerprint="",
                mark_ms=0,
                told="",
                test=0,
                candidates=[digest, sealed],
            )
            pipeline.evalsha(sha, *script.arguments(call))
            pipeline.hset(
                keys.user,
                mapping={Field.DELIVERY: "sent", Field.ATTEMPTS: 1, Field.MAILED_MS: 1_800_000_000_000},
            )
            pipeline.zrem(keys.outbox, keys.user_id)
            batch.append((text, number))
            if len(batch) == BATCH:
                yield from _registered(batch, pipeline.execute())
                batch.clear()
        yield from _registered(batch, pipeline.execute())


def _registered(batch: list[tuple[str, str]], replies: list[Any]) -> Iterator[tuple[str, str]]:
    """Those whose number was free; each has three replies, of which the first is the script's."""
    for each, reply in zip(batch, replies[::3], strict=True):
        if reply[0] == b"registered":
            yield each


class CountedUsers(Users):
    """Counts the calls of `register.lua`."""

    calls = 0

    def register(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return super().register(*args, **kwargs)


class FullShard:
    """A shard whose number space is full to a share: `space` numbers, of which a fraction is taken."""

    def __init__(self, url: str, space: int, share: float) -> None:
        names, sealer, storage = Names(None), Sealer([]), Storage(url, 5.0)
        self._space = space
        address = next(
            found
            for n in range(100_000)
            if names.user(DEFAULT, found := Address.parse(f"full{n}@example.com")).shard == SHARD
        )
        self._draft = Draft(address, TOKEN, "en", Service())
        self._users = CountedUsers(storage, names, sealer)
        self._service = RegistrationService(
            self._users,
            Guard(storage, names, sealer),
            NumberGenerator(DIGITS, self._below),
            NO_MAIL,
            Metrics(),
        )
        taken = []
        draws = secrets.SystemRandom().sample(range(space), int(space * share))
        drawn = iter(draws)
        generator = NumberGenerator(DIGITS, lambda _: next(drawn))
        for _ in draws:
            number = generator.draw(SHARD)
            taken.append(("SET", f"{{{SHARD:03}}}:number:{names.number(number)}", "taken"))
            if len(taken) == BATCH:
                storage.pipeline(taken)
                taken.clear()
        storage.pipeline(taken)

    def calls_per_registration(self, registrations: int) -> float:
        """Registers one address again and again: the share that is taken stays as it is."""
        self._users.calls = 0
        for _ in range(registrations):
            with contextlib.suppress(NumberSpaceExhausted):
                self._service.store(self._draft, lease_ms=0)
        return self._users.calls / registrations

    def _below(self, _: int) -> int:
        return secrets.randbelow(self._space)
