"""Who calls, and may they? API keys, and how often each client may ask.

May import `container` for what counts requests; knows nothing of Redis.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from app.config import ApiKey, Settings
from app.container import services
from app.domain.client import client_of
from app.errors import Unauthorized
from app.http.request import Request, current

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


def install(app: Flask, settings: Settings) -> None:
    """Asks for API keys, counts requests, and believes as many proxies as the operator says."""
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        proxied = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops)
        app.wsgi_app = proxied  # type: ignore[method-assign] # Flask's documented way to add a middleware
    keys = ApiKeys(settings.api_keys)

    def admit() -> None:
        """Before routing has its say: without a key, nobody learns what exists."""
        request = current()
        path = request.path
        if not _is_protected(path):
            return
        if settings.api_keys:
            owner = keys.owner(_bearer_token(request))
            if owner is None:
                raise Unauthorized("An API key is needed")
            request.comes_from(owner)
        if settings.client_limit and path != METRICS:
            services().client_limits.count(request.caller or client_of(request.remote_addr or ""))

    app.before_request(admit)


METRICS = "/metrics"
"""Not counted for CLIENT_LIMIT: counting needs Redis, and a scrape must work while Redis is down."""


def _is_protected(path: str) -> bool:
    return path.startswith("/api/") or path in ("/api", METRICS)


def _bearer_token(request: Request) -> str:
    """What stands behind `Bearer` (RFC 6750 §2.1); empty without it. No key is empty."""
    scheme, _, token = request.environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
