"""A collector of traces: a small OTLP/HTTP receiver that keeps the spans it is sent."""

import contextlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.waiting import wait_until


class Span(NamedTuple):
    """A span as it came. Ids in hexadecimal; `kind`, `status` as OTLP numbers them; `events` and `links`: how
    many."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    status: int
    message: str
    facts: dict[str, Any]
    seconds: float
    events: int
    links: int


class Collector:
    """Takes spans until it is stopped. `answer`: the status that it gives. `hold_s`: how long it is silent
    before that."""

    def __init__(self, answer: int = 200, hold_s: float = 0.0) -> None:
        self.answer, self.hold_s = answer, hold_s
        self.spans: list[Span] = []
        self.raw: list[bytes] = []
        """The bodies as they came."""
        self.resources: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def settings(self) -> dict[str, str]:
        """How a service is told of it; batches go out soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def wait_for(self, right: Callable[[Span], bool], what: str = "a span", timeout_s: float = 15.0) -> Span:
        return wait_until(lambda: list(filter(right, list(self.spans))), timeout_s, what)[0]

    def named(self, name: str) -> Span:
        return self.wait_for(lambda span: span.name == name, name)

    def trace(self, of: str) -> list[Span]:
        """The spans of a trace, the first that began first."""
        return [span for span in list(self.spans) if span.trace == of]

    def stop(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _take(self, body: bytes, headers: dict[str, str]) -> None:
        self.raw.append(body)
        self.headers.append(headers)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(_facts(group.resource.attributes))
            self.spans += [_span(span) for scope in group.scope_spans for span in scope.spans]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                collector._take(body, dict(self.headers))
                collector._ended.wait(collector.hold_s)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(collector.answer)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                with contextlib.suppress(OSError):  # it waits no more
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Nothing is printed."""

        return Handler


def _facts(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def _span(span: Any) -> Span:
    return Span(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=span.kind,
        status=span.status.code,
        message=span.status.message,
        facts=_facts(span.attributes),
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        events=len(span.events),
        links=len(span.links),
    )
