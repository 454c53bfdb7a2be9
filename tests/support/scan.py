"""Looks at everything in Redis and says what does not fit together."""

from collections import Counter

import redis


def kinds(client: redis.Redis) -> Counter[str]:
    """How many keys there are of each kind: `user`, `number`, `sender`, `outbox` …"""
    return Counter(key.decode().split(":")[1] for key in client.scan_iter(count=1000))


def contradictions(client: redis.Redis) -> list[str]:
    """Every record must have exactly its one number, every number its record, every outbox entry a record."""
    found: list[str] = []
    keys = [key.decode() for key in client.scan_iter(count=1000)]
    numbers = {key: (client.get(key) or b"").decode() for key in keys if ":number:" in key}
    owned: set[str] = set()
    for key in (key for key in keys if ":user:" in key):
        tag, _, user_id = key.split(":", 2)
        number = f"{tag}:number:{(client.hget(key, 'n') or b'').decode()}"
        owned.add(number)
        if numbers.get(number) != user_id:
            found.append(f"record without its number: {key}")
    found += [f"number without a record: {key}" for key in numbers if key not in owned]
    for key in (key for key in keys if key.endswith(":outbox")):
        tag = key.split(":", 1)[0]
        for entry in client.zrange(key, 0, -1):
            if f"{tag}:user:{entry.decode()}" not in keys:
                found.append(f"outbox entry without a record: {entry.decode()}")
    return found
