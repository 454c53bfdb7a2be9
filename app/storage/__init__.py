"""How commands travel to Redis: one server, Sentinel or a cluster. The only room that imports `redis`."""
