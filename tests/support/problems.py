"""Checks of RFC 9457 answers."""

import re
from typing import Any

import requests

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def assert_problem(answer: requests.Response, status: int, slug: str) -> dict[str, Any]:
    """The answer is this problem, in full, under a request id; returns its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert REQUEST_ID.fullmatch(answer.headers["X-Request-ID"])
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"/problems/{slug}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    own = {"invalid-request": {"errors"}, "verification-failed": {"tries_left"}}.get(slug, set())
    assert set(body) <= {"type", "title", "status", "detail", *own}
    assert body.get("tries_left", 0) >= 0
    for messages in body.get("errors", {}).values():
        assert messages
        assert all(isinstance(message, str) for message in messages)
    return body
