"""Steps as OpenTelemetry spans, which go to a collector over OTLP/HTTP. The only module that imports it.

A thread of its SDK sends them in batches. Where the collector is away or slow, OTEL_BSP_MAX_QUEUE_SIZE of
them (2,048) wait for it at most, older ones are dropped, and one line of the log tells when that begins and
ends. What the library itself would log comes with each batch and can quote a collector, so it is not written.
May import `threads`, `errors` and `version`.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.errors import PROBLEMS, CedulaError
from app.telemetry.traces import NOTHING, Traces
from app.threads import in_children
from app.version import VERSION

CLOSE_WITHIN_S = 3.0
"""For the last batch. A collector that is away must not hold up the end of a process."""

log = structlog.get_logger()


class CollectedTraces(Traces):
    """Spans of this process. The thread that sends them starts with the first, so never in a process that
    only forks others; a forked process has its own."""

    on = True

    def __init__(self) -> None:
        super().__init__()
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        self._propagator = TraceContextTextMapPropagator()
        self._start_over()
        in_children(self._start_over)

    def request(self, traceparent: str) -> AbstractContextManager[None]:
        return self._span("request", SpanKind.SERVER, self._context(traceparent))

    def answered(self, route: str, method: str, status: int) -> str:
        span = trace.get_current_span()
        span.update_name(f"{method} {route}")
        span.set_attribute("http.request.method", method)
        span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        return self.here()

    def work(self, name: str, traceparent: str = "") -> AbstractContextManager[None]:
        return self._span(name, SpanKind.INTERNAL, self._context(traceparent))

    def step(self, name: str) -> AbstractContextManager[None]:
        if not trace.get_current_span().is_recording():
            return NOTHING
        return self._span(name, SpanKind.INTERNAL)

    def redis(self, operation: str) -> AbstractContextManager[None]:
        if not trace.get_current_span().is_recording():
            return NOTHING
        facts = {"db.system.name": "redis", "db.operation.name": operation}
        return self._span(f"redis {operation}", SpanKind.CLIENT, facts=facts)

    def note(self, name: str, value: str) -> None:
        trace.get_current_span().set_attribute(name, str(value))  # an enum, too

    def here(self) -> str:
        found = trace.get_current_span().get_span_context()
        if not found.is_valid:
            return ""
        return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"

    def close(self) -> None:
        if self._provider is None:
            return
        closing = threading.Thread(target=_shut_down, args=(self._provider,), daemon=True)
        with suppress(RuntimeError):  # the system has no more threads
            closing.start()
            closing.join(CLOSE_WITHIN_S)  # what is left then is lost

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, context: Context | None = None, facts: dict[str, str] | None = None
    ) -> Iterator[None]:
        """`context`: where it belongs; None = to the present span. The text of an exception is not taken."""
        span = (self._tracer or self._start()).start_span(name, context, kind, facts)
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield
            except BaseException as error:
                slug = error.slug if isinstance(error, CedulaError) else ""
                span.set_attribute("error.type", slug or type(error).__name__)
                if not slug or PROBLEMS[slug].status >= 500:
                    span.set_status(StatusCode.ERROR)
                raise

    def _context(self, traceparent: str) -> Context:
        """Of a caller's headers only this one counts: `tracestate` and `baggage` are free text."""
        return self._propagator.extract({"traceparent": traceparent}, Context())

    def _start_over(self) -> None:
        self._starting = threading.Lock()
        self._provider: TracerProvider | None = None
        self._tracer: trace.Tracer | None = None

    def _start(self) -> trace.Tracer:
        with self._starting:
            if self._tracer is None:
                try:
                    self._provider = _new_provider()
                    self._tracer = self._provider.get_tracer("cedula")
                except Exception as error:  # noqa: BLE001 observing ends nothing
                    self._tracer = trace.NoOpTracer()
                    log.warning("traces_off", hint="a variable OTEL_… is wrong", error=type(error).__name__)
            return self._tracer


def _new_provider() -> TracerProvider:
    """As OpenTelemetry's variables say; OTEL_SERVICE_NAME comes before our name."""
    resource = Resource.create({"service.name": "cedula", "service.version": VERSION})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_Told(OTLPSpanExporter())))
    return provider


def _shut_down(provider: TracerProvider) -> None:
    with suppress(Exception):
        provider.shutdown()


class _Told(SpanExporter):
    """The exporter, and a line in the log when it begins or ceases to fail."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        with suppress(Exception):
            result = self._exporter.export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing != self._failing:
            self._failing = failing
            if failing:
                log.warning("traces_lost", hint="the collector at OTEL_EXPORTER_OTLP_ENDPOINT takes none")
            else:
                log.info("traces_taken")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
