"""Whether there is a collector of traces, as OpenTelemetry's own variables say.

Imports OpenTelemetry (app/telemetry/otlp.py) only where there is one.
"""

import os

from app.telemetry.traces import OFF, Traces

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""OpenTelemetry's own variables: where either is set, there is one."""

PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HTTP = "http/protobuf"


def traces_from_environment() -> Traces:
    """As OpenTelemetry's variables say. The service starts with wrong ones, too: other programs of a machine
    share them, and observing ends nothing. What is wrong is then the `fault`."""
    if not _first(ENDPOINTS) or _says("OTEL_SDK_DISABLED", "true") or _says("OTEL_TRACES_EXPORTER", "none"):
        return OFF
    if not _first(ENDPOINTS).lower().startswith(("http://", "https://")):
        return Traces("the endpoint must begin with http:// or https://")
    if _first(PROTOCOLS) not in ("", HTTP):
        return Traces(f"the only protocol is {HTTP}")
    try:
        from app.telemetry.otlp import CollectedTraces

        return CollectedTraces()
    except ImportError:
        return Traces("install the packages of requirements-otel.txt")


def _first(names: tuple[str, ...]) -> str:
    return next((found for name in names if (found := os.environ.get(name, "").strip())), "")


def _says(name: str, word: str) -> bool:
    return os.environ.get(name, "").strip().lower() == word
