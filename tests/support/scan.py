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
    return found + _about_events(client, keys)


def _about_events(client: Client, keys: list[str]) -> list[str]:
    """Whoever has events must stand in the schedule of the shard, and as many be counted as there are. An end
    that is noted must stand among the ends of its shard; each record whose service wants to know has one."""
    lists: set[str] = set()
    listed: Counter[str] = Counter()
    for key in (key for key in keys if ":events:" in key):
        tag, _, user_id = key.split(":", 2)
        first = text(client.lindex(key, 0))
        if not first:  # delivered meanwhile
            continue
        service = first.split("|")[3]
        lists.add(f"{tag}|{service}|{user_id}")
        listed[f"{tag}|{service}"] += client.llen(key)
    scheduled, counted, ends = set[str](), Counter[str](), set[str]()
    for key in (key for key in keys if key.startswith("{")):
        tag, _, kind = key.partition(":")
        if kind == "schedule":
            scheduled |= {f"{tag}|{text(entry)}" for entry in client.zrange(key, 0, -1)}
        elif kind == "waiting":
            counts = {text(name): int(count) for name, count in client.hgetall(key).items()}
            counted += Counter({f"{tag}|{name}": count for name, count in counts.items() if ":" not in name})
        elif kind == "expiries":
            ends |= {f"{tag}:expiry:{text(user_id)}" for user_id in client.zrange(key, 0, -1)}
    noted = {key for key in keys if ":expiry:" in key}
    wanted = {
        key for key in keys if ":user:" in key and client.hexists(key, "u") and client.hexists(key, "x")
    }
    found = [f"scheduled without events, or the reverse: {entry}" for entry in lists ^ scheduled]
    found += [
        f"another number of events than is counted: {shard}"
        for shard in listed
        if listed[shard] != counted[shard]
    ]
    found += [f"counted events that are not there: {shard}" for shard in counted.keys() - listed.keys()]
    found += [f"noted as an end, or among the ends, but not both: {key}" for key in noted ^ ends]
    return found + [
        f"its end is not noted: {key}" for key in wanted if key.replace(":user:", ":expiry:") not in noted
    ]
