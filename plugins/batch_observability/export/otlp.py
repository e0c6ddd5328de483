"""
Signals by OTLP to any OpenTelemetry backend, with the SDK's exporters and the standard `OTEL_*` variables.

HTTP is the default; `OTEL_EXPORTER_OTLP_PROTOCOL=grpc`, or port 4317, is served where that exporter is installed (it
comes with Airflow). Metrics are deltas: each run is a process of its own.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from batch_observability import schema
from batch_observability._version import __version__
from batch_observability.export.otlp_json import SEVERITIES, resource_attributes, scope_of, span_attributes
from batch_observability.export.signals import LOGS, METRICS, TRACES, Batch, LogRecord, Span
from batch_observability.export.target import (
    ExportError,
    complaints,
    otlp_endpoint,
    otlp_endpoints,
    otlp_switched_off,
)
from batch_observability.schema import MetricType

_SCOPE = "batch_observability"
_GRPC_PORT = 4317
# Who signs requests by a session of their own (a variable of the SDK) keeps it.
_CREDENTIALS = "_CREDENTIAL_PROVIDER"
# What gRPC says when a connection ends below a request.
_GRPC_BROKEN = (
    *("Socket closed", "Connection reset", "Broken pipe", "Stream removed", "Transport closed", "GOAWAY"),
    *("keepalive", "ping timeout", "recvmsg", "sendmsg", "Connection timed out"),
)


class OtlpTarget:
    """
    An OTLP endpoint for each signal that has one.

    Args:
        environ: the standard `OTEL_*` variables.
    """

    name = "otlp"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._exporters: dict[str, Any] = {}
        # By signal: requests that were sent, and nobody said what became of them. Signals are sent side by side.
        self._unanswered: dict[str, list[str]] = {TRACES: [], METRICS: [], LOGS: []}

    def send(self, batch: Batch) -> None:
        """Send each signal that the batch holds and that has an endpoint."""
        senders: dict[str, tuple[Callable[[Batch, Any], Any], Any]] = {
            TRACES: (_spans, batch.spans),
            METRICS: (_metrics, batch.points),
            LOGS: (_logs, batch.logs),
        }
        failed, uncertain = {}, False
        for signal, (convert, wanted) in senders.items():
            if wanted and self._is_wanted(signal):
                self._unanswered[signal].clear()
                if reason := self._export(signal, convert, batch):
                    failed[signal] = reason
                    uncertain = uncertain or bool(self._unanswered[signal])
        if failed:
            raise ExportError(failed, uncertain=uncertain)

    def _export(self, signal: str, convert: Callable[[Batch, Any], Any], batch: Batch) -> str:
        """Send one signal; return why it was not taken, or ""."""
        with complaints("opentelemetry.exporter") as said:
            try:
                result = self._exporter(signal).export(convert(batch, _resources())).name
            except Exception as error:
                result = f"{type(error).__name__}: {error}"
        self._unanswered[signal] += filter(_grpc_unanswered, said)
        return "" if result == "SUCCESS" else f"the OTLP endpoint did not take the {signal}: {[result, *said][-1]}"

    def _is_wanted(self, signal: str) -> bool:
        if otlp_endpoints(self._environ):
            return bool(otlp_endpoint(self._environ, signal.upper()))
        # Chosen by BATCHOBS_EXPORT, with no endpoint: the SDK's default is a collector on this host.
        return not otlp_switched_off(self._environ, signal.upper())

    def _exporter(self, signal: str) -> Any:
        if signal not in self._exporters:
            protocol = _protocol(self._environ, signal.upper())
            module, name = {
                TRACES: ("trace_exporter", "OTLPSpanExporter"),
                METRICS: ("metric_exporter", "OTLPMetricExporter"),
                LOGS: ("_log_exporter", "OTLPLogExporter"),
            }[signal]
            package = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{protocol}.{module}")
            for logger in ("grpc.exporter", "http._log_exporter"):
                # The SDK does not repeat a complaint within 20 s, and by it alone we know what became of a request.
                logging.getLogger(f"opentelemetry.exporter.otlp.proto.{logger}").filters.clear()
            # Metrics have no ids: what may have arrived must not be sent again, also not by the exporter itself.
            once = signal == METRICS
            options: dict[str, Any] = {}
            if protocol == "http" and not any(name.endswith(_CREDENTIALS) for name in self._environ):
                options["session"] = _watched_session(self._unanswered[signal], once=once)
            elif once:
                busy = importlib.import_module("grpc").StatusCode.RESOURCE_EXHAUSTED
                options["retryable_error_codes"] = frozenset({busy})
            self._exporters[signal] = getattr(package, name)(**options)
        return self._exporters[signal]


def _protocol(environ: Mapping[str, str], signal: str) -> str:
    said = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if said:
        return "grpc" if said == "grpc" else "http"
    return "grpc" if urlsplit(otlp_endpoint(environ, signal)).port == _GRPC_PORT else "http"


def _watched_session(unanswered: list[str], *, once: bool) -> Any:
    """Make a session that remembers requests without an answer; where no connection was made, nothing was sent."""
    import requests
    from requests.adapters import HTTPAdapter

    class Watch(HTTPAdapter):
        def send(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().send(*args, **kwargs)
            except requests.RequestException as error:
                if _never_connected(error):
                    raise
                unanswered.append(type(error).__name__)
                if once:
                    # The exporter sends again after what it knows as a connection error, and this is none.
                    raise requests.RequestException(f"no answer came, {error}") from error
                raise

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, Watch())
    return session


def _never_connected(error: Exception) -> bool:
    import requests
    from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError, ProxyError, SSLError

    cause = error.args[0] if error.args else None
    if isinstance(cause, MaxRetryError):
        cause = cause.reason
    # A name that cannot be resolved is a NewConnectionError too; an address that makes no sense is a ValueError.
    return isinstance(error, requests.ConnectTimeout | ValueError) or isinstance(
        cause, NewConnectionError | ConnectTimeoutError | ProxyError | SSLError
    )


def _grpc_unanswered(complaint: str) -> bool:
    """Whether gRPC complains of a request that it has sent; a collector that is busy answers UNAVAILABLE as well."""
    return "StatusCode.DEADLINE_EXCEEDED" in complaint or (
        "StatusCode.UNAVAILABLE" in complaint and any(words in complaint for words in _GRPC_BROKEN)
    )


def _resources() -> Callable[[str, str, str], Any]:
    """Make resources as the SDK does, so that `OTEL_RESOURCE_ATTRIBUTES` is heeded."""
    from opentelemetry.sdk.resources import Resource

    return lambda service, version, env: Resource.create(resource_attributes(service, version, env))


def _spans(batch: Batch, resource_of: Callable[[str, str, str], Any]) -> list[Any]:
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

    def context(trace_id: int, span_id: int) -> Any:
        return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def convert(span: Span) -> Any:
        return ReadableSpan(
            name=span.operation,
            context=context(span.trace_id, span.span_id),
            parent=context(span.trace_id, span.parent_id) if span.parent_id else None,
            resource=resource_of(span.service, span.version, batch.env),
            attributes=span_attributes(span),
            events=[Event(event.name, event.attributes, event.time_ns) for event in span.events],
            links=[Link(context(*link)) for link in span.links],
            kind=SpanKind.CONSUMER if span.measured else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, span.error.message) if span.error else Status(),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=InstrumentationScope(_SCOPE, __version__),
        )

    return [convert(span) for span in batch.spans]


def _metrics(batch: Batch, resource_of: Callable[[str, str, str], Any]) -> Any:
    from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
    from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

    reader = InMemoryMetricReader(
        preferred_temporality={
            Counter: AggregationTemporality.DELTA,
            Histogram: AggregationTemporality.DELTA,
        },
        # The default buckets, up to 10,000, fit milliseconds and not seconds, bytes and rows.
        preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()},
    )
    provider = MeterProvider([reader], resource_of(batch.service, batch.version, batch.env), shutdown_on_exit=False)
    meter = provider.get_meter(_SCOPE, __version__)
    makers = {
        MetricType.COUNT: (meter.create_counter, "add"),
        MetricType.GAUGE: (meter.create_gauge, "set"),
        MetricType.DISTRIBUTION: (meter.create_histogram, "record"),
    }
    instruments: dict[schema.Metric, Any] = {}
    for point in batch.points:
        metric = point.metric
        make, verb = makers[metric.type]
        if metric not in instruments:
            instruments[metric] = make(metric.name, unit=metric.unit, description=metric.description)
        # What comes back from disk is a double: one metric must not be both.
        getattr(instruments[metric], verb)(float(point.value), point.tags)
    data = reader.get_metrics_data()
    provider.shutdown()
    return data


def _logs(batch: Batch, resource_of: Callable[[str, str, str], Any]) -> list[Any]:
    from opentelemetry._logs import LogRecord as ApiRecord
    from opentelemetry._logs import SeverityNumber
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    resource = resource_of(batch.service, batch.version, batch.env)

    def scope(logger: str) -> Any:
        return InstrumentationScope(**scope_of(logger))

    def convert(record: LogRecord) -> Any:
        span = SpanContext(record.trace_id, record.span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        api_record = ApiRecord(
            timestamp=record.time_ns,
            observed_timestamp=record.time_ns,
            context=set_span_in_context(NonRecordingSpan(span)),
            severity_number=SeverityNumber(SEVERITIES[record.level]),
            severity_text=record.level.upper(),
            body=record.event,
            attributes=record.attributes,
        )
        return ReadableLogRecord(api_record, resource, scope(record.logger))

    return [convert(record) for record in batch.logs]
