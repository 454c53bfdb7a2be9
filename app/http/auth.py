"""Who calls: API keys, and CLIENT_LIMIT, the requests that a client may make.

May import `container` for what counts requests; knows nothing of Redis.
"""

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from app.container import Container
from app.domain.client import client_of
from app.domain.service import DEFAULT, Caller
from app.errors import Unauthorized
from app.http.application import Request, current


def install(app: Flask, services: Container) -> None:
    """Asks for API keys, counts requests, and believes as many proxies as the operator says."""
    if hops := services.settings.trusted_proxies:
        proxied = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops)
        app.wsgi_app = proxied  # type: ignore[method-assign] # Flask's documented way to add a middleware

    def admit() -> None:
        """Runs before errors of routing are raised: a caller without a key learns nothing of what exists."""
        request = current()
        path = request.path
        if not _is_protected(path):
            return
        directory = services.directory
        caller = directory.anyone or directory.caller(_bearer_token(request))
        if caller is None or (path == METRICS and caller.service.id != DEFAULT):
            raise Unauthorized("An API key is needed")
        request.comes_from(caller)
        if caller.service.client_limit and path != METRICS:
            services.client_limits.count(_client(request, caller), caller.service.client_limit)

    app.before_request(admit)


METRICS = "/metrics"
"""Not counted for CLIENT_LIMIT: counting needs Redis, and a scrape must work while Redis is down."""


def _is_protected(path: str) -> bool:
    return path.startswith("/api/") or path in ("/api", METRICS)


def _client(request: Request, caller: Caller) -> str:
    """Whose requests are counted together: a service's, or, of the service `default`, a key's or an IP's."""
    if caller.service.id != DEFAULT:
        return f"service {caller.service.id}"
    return caller.key_name or client_of(request.remote_addr or "")


def _bearer_token(request: Request) -> str:
    """The token of `Authorization: Bearer` (RFC 6750 §2.1); empty without it. No key is empty."""
    scheme, _, token = request.environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
