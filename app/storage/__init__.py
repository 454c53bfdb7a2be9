"""How commands travel to Redis: one server, Sentinel or a cluster. The only room that imports `redis`.

Promise: a caller hears within one REDIS_TIMEOUT, and no write is repeated blindly. `storage.Storage` and
`scripts.script` are what others use. May import `app.errors` and `app.threads`.
"""
