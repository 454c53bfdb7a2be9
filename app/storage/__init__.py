"""How commands travel to Redis: one server, Sentinel or a cluster. The only room that imports `redis`.

Promise: a caller gets its answer or an error within REDIS_TIMEOUT and a tenth, and no write is repeated
blindly. Others use `storage.Storage` and `scripts.script`. May import `app.errors` and `app.threads`.

From the outside in: `storage` (what may be asked), `servers` (which server has a key), `line` (who uses its
connection when), `connections` and `url` (how one is made, what is written to it and read). Beside them
`watchdog` (ends what takes too long), `faults` (what goes wrong, by code) and `scripts`.

Why redis-py makes the connections and no more: docs/decisions/0009-kept-redis-connections.md.
Tests: tests/integration/test_lines.py, tests/faults/test_way_to_redis.py, tests/topologies/.
"""
