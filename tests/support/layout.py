"""What a release leaves in Redis: written by its own code, kept as plain values, restored for later ones.

`python -m tests.support.layout FOLDER` writes the fixtures of the code that it runs with. Do so when the
layout version changes, into a folder of its own, and keep the older folders: the code must serve them all.
"""

import base64
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from app.domain.address import Address
from app.domain.budget import Budget
from app.domain.number import NumberGenerator
from app.domain.registration import Delivery, Draft, Stored
from app.errors import VerificationFailed
from app.repositories.guard import Guard
from app.repositories.keys import Names
from app.repositories.outbox import Outbox
from app.repositories.sealing import Sealer
from app.repositories.users import Terms, Users
from app.storage.storage import Storage
from tests.support.servers import Valkey
from tests.support.values import text

SECRET, INDEX = "the secret key of the layout fixtures", "the index key of the layout fixtures"
DIGITS = 12
DAY_MS = 86_400_000
TOKEN = "basket 3 \u2026"
LONG_TOKEN = "long " * 500
KEY, CALLER = "order-4711", ""
FOR_EVER_MS = 0

PEOPLE = ("sent", "due", "begun", "failed", "guessed", "forever", "long", "pending", "running", "spanish")
"""One address for each state, `<state>@example.com`."""


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
        else:
            value = _text(client.get(key) or b"")
        left_ms = client.pttl(key)
        found.append(
            {"key": key.decode(), "kind": kind, "value": value, "left_ms": left_ms if left_ms > 0 else None}
        )
    return found


def restore(client: redis.Redis, path: Path) -> dict[str, str]:
    """Puts a fixture into an empty Redis as if it had been written just now; returns each person's number."""
    fixture = json.loads(path.read_text())
    later_ms = int(time.time() * 1000) - fixture["written_ms"]
    for entry in fixture["keys"]:
        key, value = entry["key"], entry["value"]
        if entry["kind"] == "hash":
            fields = {name: _bytes(held) for name, held in value.items()}
            for name in ("c", "m", "x", "t"):
                if name in fields:
                    fields[name] = str(int(fields[name]) + later_ms).encode()
            client.hset(key, mapping=fields)
        elif entry["kind"] == "zset":
            client.zadd(key, {name: due + later_ms for name, due in value.items()})
        else:
            held = _bytes(value)
            if ":idempotency:" in key:
                fingerprint, registration, created, delivery = held.decode().split("|")
                held = f"{fingerprint}|{registration}|{int(created) + later_ms}|{delivery}".encode()
            client.set(key, held)
        if entry["left_ms"] is not None:
            client.pexpire(key, entry["left_ms"])
    numbers: dict[str, str] = fixture["numbers"]
    return numbers


def written(client: redis.Redis, url: str, *secrets: str) -> dict[str, Any]:
    """Lets this code register people and bring them into every state; returns the fixture."""
    names, sealer, ours = Names(INDEX), Sealer(secrets), Storage(url, 5.0)
    users, outbox = Users(ours, names, sealer), Outbox(ours, sealer, 25_000)
    Guard(ours, names, sealer).check()
    budget = Budget(10, 3600)
    numbers: dict[str, str] = {}

    def registered(person: str, *, lease_ms: int = 25_000, named: bool = False) -> Stored:
        draft = Draft(
            address(person),
            LONG_TOKEN if person == "long" else TOKEN,
            "es" if person == "spanish" else "en",
        )
        keys = users.keys(draft.address)
        terms = Terms(FOR_EVER_MS if person == "forever" else DAY_MS, budget, DAY_MS)
        stored = users.register(
            keys,
            draft,
            NumberGenerator(DIGITS).draw_distinct(keys.shard, 4),
            terms,
            lease_ms=lease_ms,
            once=users.once(CALLER, draft, KEY) if named else None,
        )
        assert isinstance(stored, Stored)
        numbers[person] = stored.registration.number
        return stored

    def settled(stored: Stored, delivery: Delivery, error: str = "") -> None:
        registration = stored.registration
        outbox.settle(
            registration.user_id, registration.registration_id, stored.owner or "", delivery, error=error
        )

    for person in ("sent", "guessed", "forever", "long", "spanish"):
        settled(registered(person), Delivery.SENT)
    settled(registered("failed"), Delivery.FAILED, "recipient 550 5.1.1")
    registered("due", lease_ms=0)
    registered("begun")
    sent = registered("sent", named=True)
    settled(sent, Delivery.SENT)
    draft = Draft(address("sent"), TOKEN, "en")
    users.keep_answer(sent.registration, users.once(CALLER, draft, KEY), Delivery.SENT, DAY_MS)
    pending = registered("pending", lease_ms=0, named=True)
    draft = Draft(address("pending"), TOKEN, "en")
    users.keep_answer(pending.registration, users.once(CALLER, draft, KEY), Delivery.PENDING, DAY_MS)
    registered("running", lease_ms=0, named=True)
    for _ in range(3):
        with contextlib.suppress(VerificationFailed):
            users.verify(address("guessed"), numbers["spanish"], Budget(5, 900))
    assert sorted(numbers) == sorted(PEOPLE)
    ours.close()
    return {"written_ms": int(time.time() * 1000), "numbers": numbers, "keys": kept(client)}


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
