"""Looks at everything in Redis and says what does not fit together."""

from collections import Counter

import redis

from tests.support.values import text

Client = redis.Redis | redis.RedisCluster


def kinds(client: Client) -> Counter[str]:
    """How many keys there are of each kind: `user`, `number`, `sender`, `outbox` …"""
    return Counter(text(key).split(":")[1] for key in client.scan_iter(count=1000))


def contradictions(client: Client) -> list[str]:
    """Every record must have exactly its one number, every number its record, every outbox entry a record."""
    found: list[str] = []
    keys = [text(key) for key in client.scan_iter(count=1000)]
    numbers = {key: text(client.get(key)) for key in keys if ":number:" in key}
    owned: set[str] = set()
    for key in (key for key in keys if ":user:" in key):
        tag, _, user_id = key.split(":", 2)
        number = f"{tag}:number:{text(client.hget(key, 'n'))}"
        owned.add(number)
        if numbers.get(number) != user_id:
            found.append(f"record without its number: {key}")
    found += [f"number without a record: {key}" for key in numbers if key not in owned]
    for key in (key for key in keys if key.endswith(":outbox")):
        tag = key.split(":", 1)[0]
        for entry in map(text, client.zrange(key, 0, -1)):
            if f"{tag}:user:{entry}" not in keys:
                found.append(f"outbox entry without a record: {entry}")
    return found
