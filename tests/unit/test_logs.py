"""Log lines: one JSON object each, whatever is in it."""

import json

import pytest

from app.telemetry.logs import _to_json


@pytest.mark.parametrize("value", ["ada", "\ud800", 2**80, float("nan"), {1: 2}, ValueError])
def test_no_value_keeps_a_line_from_being_written(value: object) -> None:
    """A line that fails would take its request with it."""
    assert json.loads(_to_json({"event": "request", "value": value}))["event"] == "request"
