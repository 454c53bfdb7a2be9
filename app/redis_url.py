"""The forms of REDIS_URL."""

from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from redis.connection import parse_url

SENTINEL = "redis+sentinel"
CLUSTER = "redis+cluster"
SCHEMES = ("redis", "rediss", "unix", SENTINEL, CLUSTER)


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A REDIS_URL, taken apart. `options` are redis-py's, with user and password among them."""

    scheme: str
    hosts: list[tuple[str, int]]
    service: str
    options: dict[str, Any]

    @classmethod
    def read(cls, url: str) -> Self:
        """Takes a REDIS_URL apart. Raises ValueError, whose text may quote the URL."""
        parts = urlsplit(url)
        if parts.scheme not in (SENTINEL, CLUSTER):
            options = parse_url(url)  # type: ignore[no-untyped-call]
            for name in ("host", "port", "path", "connection_class", "db"):
                options.pop(name, None)
            return cls(parts.scheme, [], "", options)
        login, _, hosts = parts.netloc.rpartition("@")
        default_port = 26379 if parts.scheme == SENTINEL else 6379
        pairs = [
            host.rpartition(":") if ":" in host else (host, "", str(default_port))
            for host in hosts.split(",")
        ]
        service = parts.path.strip("/")
        if not all(host for host, _, _ in pairs) or (parts.scheme == SENTINEL) != bool(service):
            raise ValueError("hosts or service missing")
        options = parse_url(f"redis://{login}{'@' if login else ''}host/?{parts.query}")  # type: ignore[no-untyped-call]
        for name in ("host", "connection_class"):
            options.pop(name, None)
        return cls(parts.scheme, [(host, int(port)) for host, _, port in pairs], service, options)
