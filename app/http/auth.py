"""Who may call: API keys, and how often."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from typing import NamedTuple

from flask import Flask, g, request
from flask.typing import ResponseReturnValue
from flask_httpauth import HTTPTokenAuth
from flask_limiter import Limiter
from flask_limiter.errors import RateLimitExceeded
from limits.errors import StorageError
from limits.storage import RedisStorage
from limits.storage import Storage as LimitsStorage
from werkzeug.middleware.proxy_fix import ProxyFix

from app.config import ApiKey, Settings
from app.errors import StorageUnavailable, TooManyRequests, Unauthorized
from app.http.problems import domain_problem
from app.repositories.keys import CLIENT_LIMITS, Names
from app.storage.scripts import Key, script
from app.storage.storage import Storage

KEY_PREFIX = "cedula_"
"""So that people and secret scanners know what they have found."""


def new_key() -> str:
    """A fresh API key: 256 bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """SHA-256 in hexadecimal. A key has 256 random bits, so a slow hash would protect nothing more."""
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeys:
    """Finds out whose key was given."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = keys

    def owner(self, given: str) -> str | None:
        """The name of the key's owner. Every key is compared, each in constant time."""
        found, candidate = None, digest(given)
        for key in self._keys:
            if hmac.compare_digest(key.sha256, candidate):
                found = key.name
        return found


def is_protected(path: str) -> bool:
    return path.startswith("/api/") or path in ("/api", "/metrics")


def caller() -> str:
    """The name of the API key that was given; empty where none is needed."""
    name: str = g.get("caller", "")
    return name


def install(app: Flask, settings: Settings, names: Names, storage: Storage) -> None:
    """Asks for API keys, counts requests, and believes as many proxies as the operator says."""
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops)  # type: ignore[method-assign]
    if settings.api_keys:
        _ask_for_keys(app, ApiKeys(settings.api_keys))
    if settings.client_limit:
        _count_requests(app, settings.client_limit, names, storage)


def _ask_for_keys(app: Flask, keys: ApiKeys) -> None:
    auth = HTTPTokenAuth(scheme="Bearer")
    auth.verify_token(keys.owner)

    def check() -> None:
        """Before routing has its say: without a key, nobody learns what exists."""
        if is_protected(request.path):
            given = auth.get_auth()
            g.caller = auth.authenticate(given, None) if given else None
            if not g.caller:
                raise Unauthorized("An API key is needed")

    app.before_request(check)


@script(RedisStorage.SCRIPT_INCR_EXPIRE)
class CountRequests(NamedTuple):
    """How limits counts in a fixed window."""

    counter: Key
    expiry_s: int
    amount: int


class OurStorage(RedisStorage):
    """Counts in the Redis of the registrations, whatever form of REDIS_URL leads there, and as they do:
    on the same connections, nothing repeated blindly."""

    STORAGE_SCHEME = ["cedula"]  # noqa: RUF012 - as limits declares it

    def __init__(self, uri: str, storage: Storage) -> None:
        LimitsStorage.__init__(self, uri, wrap_exceptions=True)
        self.key_prefix, self.target_server = CLIENT_LIMITS, "redis"
        self._counts = storage

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return (StorageUnavailable,)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Counts `amount` in the window of `expiry` seconds; the new count."""
        return int(self._counts.run(CountRequests(self.prefixed_key(key), expiry, amount)))

    def get(self, key: str) -> int:
        return int(self._counts.command("GET", self.prefixed_key(key)) or 0)

    def get_expiry(self, key: str) -> float:
        return time.time() + max(0, int(self._counts.command("TTL", self.prefixed_key(key))))


def _count_requests(app: Flask, limit: str, names: Names, storage: Storage) -> None:
    limiter = Limiter(
        key_func=lambda: names.client(caller() or request.remote_addr or ""),
        app=app,
        application_limits=[limit],
        # /metrics says that Redis is away, so it must not ask Redis first.
        application_limits_exempt_when=lambda: not is_protected(request.path) or request.path == "/metrics",
        storage_uri=f"{OurStorage.STORAGE_SCHEME[0]}://",
        storage_options={"storage": storage},  # type: ignore[dict-item]
        strategy="fixed-window",
    )

    def too_many(_: RateLimitExceeded) -> ResponseReturnValue:
        current = limiter.current_limit
        left_s = max(1, int(current.reset_at - time.time()) + 1) if current else 1
        return domain_problem(TooManyRequests("CLIENT_LIMIT is used up", left_s))

    def storage_away(_: StorageError) -> ResponseReturnValue:
        return domain_problem(StorageUnavailable("The limits cannot be read"))

    app.register_error_handler(RateLimitExceeded, too_many)
    app.register_error_handler(StorageError, storage_away)
