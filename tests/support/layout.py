"""What a release leaves in Redis: written by its own code, kept as plain values, restored for later ones.

`python -m tests.support.layout FOLDER` writes the fixtures of the code that it runs with. Do so when the
layout version changes, into a folder of its own, and keep the older folders: the code must serve them all.

They begin with layout 2. Nothing had been released with layout 1, whose user ids said nothing of their shard
and whose records did not tell their service: no process ever had to read it, and the guard refuses its data.
"""

import base64
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis

from app.domain.address import Address
from app.domain.number import NumberGenerator
from app.domain.registration import Delivery, Draft, Registered, Stored
from app.domain.service import Budget, Service
from app.errors import VerificationFailed
from app.repositories.guard import Guard
from app.repositories.keys import Names
from app.repositories.outbox import Outbox
from app.repositories.records import Sealer
from app.repositories.users import Users
from app.storage.storage import Storage
from tests.support.people import ENDPOINT
from tests.support.servers import Valkey
from tests.support.values import text

SECRET, INDEX = "the secret key of the layout fixtures", "the index key of the layout fixtures"
DIGITS = 10
DAY_S = 86_400
TOKEN = "basket 3 \u2026"
LONG_TOKEN = "long " * 500
KEY, CALLER = "order-4711", ""
HAND_IN_KEY = "hand-in-4711"

DEFAULT_SERVICE = Service(
    ttl_s=DAY_S,
    address_limit=Budget(10, 3600),
    mailbox_limit=Budget(20, 3600),
    verify_limit=Budget(5, 900),
)
SHOP, TRIAL = replace(DEFAULT_SERVICE, id="shop"), replace(DEFAULT_SERVICE, id="trial", test=True)
TOLD = replace(DEFAULT_SERVICE, id="told", events=ENDPOINT)
TOLD_TRIAL = replace(TRIAL, id="told-trial", events=ENDPOINT)
OTHERS = (SHOP, TRIAL, TOLD, TOLD_TRIAL)
FOR_EVER = replace(DEFAULT_SERVICE, ttl_s=0)
"""How long a registration lives is told when it is made."""

PEOPLE = (
    "sent",
    "due",
    "begun",
    "failed",
    "guessed",
    "forever",
    "long",
    "pending",
    "running",
    "spanish",
    "resent",
)
"""One address for each state, `<state>@example.com`, of the service `default`; that of `sent` is registered
with the other services, too. Those that want events are still to be told that its mail was sent."""

HANDED_IN = "handed-in"
"""Was registered, and handed in its number with HAND_IN_KEY: the answer is kept for a while."""


def address(person: str) -> Address:
    return Address.parse(f"{person}@example.com")


def kept(client: redis.Redis) -> list[dict[str, Any]]:
    """Every key as plain JSON: kind, value, and how long it still lives (ms, None = for ever)."""
    found = []
    for key in sorted(client.scan_iter(count=1000)):
        kind = text(client.type(key))
        value: Any
        if kind == "hash":
            value = {text(name): _text(held) for name, held in client.hgetall(key).items()}
        elif kind == "zset":
            value = {text(name): client.zscore(key, text(name)) for name in client.zrange(key, 0, -1)}
        elif kind == "list":
            value = [_text(held) for held in client.lrange(key, 0, -1)]
        else:
            value = _text(client.get(key) or b"")
        left_ms = client.pttl(key)
        found.append(
            {"key": key.decode(), "kind": kind, "value": value, "left_ms": left_ms if left_ms > 0 else None}
        )
    return found


def restore(client: redis.Redis, path: Path) -> dict[str, str]:
    """Puts a fixture into an empty Redis as if it had been written just now.

    Returns each person's number at `default`, and by their ids the numbers of `sent` at the other services.
    """
    fixture = json.loads(path.read_text())
    later_ms = int(time.time() * 1000) - fixture["written_ms"]
    for entry in fixture["keys"]:
        key, value = entry["key"], entry["value"]
        if entry["kind"] == "hash":
            fields = {name: _bytes(held) for name, held in value.items()}
            for name in ("c", "m", "x", "t"):
                if ":user:" in key and name in fields:
                    fields[name] = str(int(fields[name]) + later_ms).encode()
            client.hset(key, mapping=fields)
        elif entry["kind"] == "zset":
            client.zadd(key, {name: due + later_ms for name, due in value.items()})
        elif entry["kind"] == "list":
            client.rpush(key, *(_shifted(_bytes(held), (1, 2), later_ms) for held in value))
        else:
            client.set(key, _shifted(_bytes(value), _times_in(key), later_ms))
        if entry["left_ms"] is not None:
            client.pexpire(key, entry["left_ms"])
    numbers: dict[str, str] = fixture["numbers"]
    return numbers


def _times_in(key: str) -> tuple[int, ...]:
    """Which parts of a string are times."""
    return (2, 3) if ":idempotency:" in key else (0, 1) if ":expiry:" in key else ()


def _shifted(held: bytes, places: tuple[int, ...], later_ms: int) -> bytes:
    """The same text, its times later."""
    parts = held.split(b"|") if places else [held]
    for place in places:
        parts[place] = str(int(parts[place]) + later_ms).encode()
    return b"|".join(parts)


class Writer:
    """One process that registers people and brings them into every state."""

    def __init__(self, url: str, secrets: tuple[str, ...]) -> None:
        self.storage = Storage(url, 5.0)
        names, sealer = Names(INDEX), Sealer(secrets)
        self.users = Users(self.storage, names, sealer, DAY_S * 1000)
        self.outbox = Outbox(self.storage, sealer, 25_000)
        self.guard = Guard(self.storage, names, sealer)
        self.numbers: dict[str, str] = {}

    def draft(self, person: str, service: Service = DEFAULT_SERVICE) -> Draft:
        token = LONG_TOKEN if person == "long" else TOKEN
        return Draft(address(person), token, "es" if person == "spanish" else "", service)

    def register(
        self,
        person: str,
        service: Service = DEFAULT_SERVICE,
        *,
        lease_ms: int = 25_000,
        named: bool = False,
    ) -> Stored:
        """`named`: the request has an Idempotency-Key."""
        draft = self.draft(person, service)
        keys = self.users.keys(service, draft.address)
        stored = self.users.register(
            keys,
            draft,
            NumberGenerator(DIGITS).draw_distinct(keys.shard, 4),
            lease_ms=lease_ms,
            once=self.users.once(CALLER, draft, KEY) if named else None,
        )
        assert isinstance(stored, Stored)
        name = person if service.id == DEFAULT_SERVICE.id else service.id
        self.numbers[name] = stored.registration.number
        return stored

    def settle(self, stored: Stored, delivery: Delivery, error: str = "") -> None:
        ours = stored.registration
        self.outbox.settle(ours.user_id, ours.mail_id, stored.owner or "", delivery, error=error)

    def resend(self, person: str) -> Stored:
        record = self.users.find(self.users.keys(DEFAULT_SERVICE, address(person)).user_id)
        assert record is not None
        stored = self.users.resend(record, DEFAULT_SERVICE, lease_ms=25_000)
        assert stored is not None
        return stored

    def answer(self, stored: Stored, person: str, delivery: Delivery) -> None:
        """Keeps the answer for repetitions."""
        ours, once = stored.registration, self.users.once(CALLER, self.draft(person), KEY)
        expires_ms = ours.asked_for_ms + DEFAULT_SERVICE.ttl_ms
        self.users.keep_answer(once, ours, Registered(ours.user_id, delivery, ours.asked_for_ms, expires_ms))


def written(client: redis.Redis, url: str, *secrets: str) -> dict[str, Any]:
    """Lets this code register people and bring them into every state; returns the fixture."""
    at = Writer(url, secrets)
    at.guard.check()
    for person in ("sent", "guessed", "long", "spanish", "resent", HANDED_IN):
        at.settle(at.register(person), Delivery.SENT)
    at.settle(at.register("forever", FOR_EVER), Delivery.SENT)
    at.settle(at.register("failed"), Delivery.FAILED, "recipient 550 5.1.1")
    at.settle(at.register("sent", SHOP), Delivery.SENT)
    for service in (TRIAL, TOLD, TOLD_TRIAL):
        at.settle(at.register("sent", service), Delivery.SENT)
    at.settle(at.resend("resent"), Delivery.SENT)
    at.register("due", lease_ms=0)
    at.register("begun")
    sent = at.register("sent", named=True)
    at.settle(sent, Delivery.SENT)
    at.answer(sent, "sent", Delivery.SENT)
    at.answer(at.register("pending", lease_ms=0, named=True), "pending", Delivery.PENDING)
    at.register("running", lease_ms=0, named=True)
    for _ in range(3):
        with contextlib.suppress(VerificationFailed):
            at.users.verify(DEFAULT_SERVICE, address("guessed"), at.numbers["spanish"])
    at.users.verify(DEFAULT_SERVICE, address(HANDED_IN), at.numbers[HANDED_IN], HAND_IN_KEY)
    assert sorted(at.numbers) == sorted([*PEOPLE, HANDED_IN, *(service.id for service in OTHERS)])
    at.storage.close()
    return {"written_ms": int(time.time() * 1000), "numbers": at.numbers, "keys": kept(client)}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, secrets in (("sealed", [SECRET]), ("clear", [])):
        with tempfile.TemporaryDirectory() as scratch:
            valkey = Valkey(Path(scratch), save="")
            try:
                with valkey.client() as client:
                    fixture = written(client, valkey.url, *secrets)
            finally:
                valkey.stop()
        (folder / f"{name}.json").write_text(json.dumps(fixture, indent=1) + "\n")


def _text(held: bytes | str) -> str:
    assert isinstance(held, bytes)
    return base64.b64encode(held).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
