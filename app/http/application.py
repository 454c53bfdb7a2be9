"""Flask as this service uses it: five extension points that its documentation names, and nothing else.

May import `request` and `responses`.
"""

from collections.abc import Callable
from typing import Any

import flask
from flask import Flask
from werkzeug.routing import MapAdapter

from app.http.request import Request
from app.http.responses import Orjson, SecureResponse


class Application(Flask):
    """Flask with plain functions as views, which are found by method and path alone."""

    json_provider_class = Orjson
    request_class = Request
    response_class = SecureResponse

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        """What a client names as its host plays no part, so no redirect can lead there. `request.path` is
        never empty, so none is made."""
        if request is None:
            return None
        return MapAdapter(self.url_map, "", "/", "", "http", request.path, request.method)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Flask would look at each view and hook for every request, whether it is asynchronous."""
        return func
