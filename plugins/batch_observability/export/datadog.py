"""
Signals to a Datadog Agent: spans by ddtrace, metrics and events by DogStatsD.

ddtrace is imported by the process that sends, once, with what would make it talk or start threads switched off. Spans
are made after the fact, with the ids and times that the run had.
"""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from batch_observability import schema
from batch_observability.export.signals import EVENTS, METRICS, TRACES, Batch, Point, Span, tag_list
from batch_observability.export.target import ExportError, complaints, tracing_disabled
from batch_observability.schema import MetricType

_KEEP = 2  # USER_KEEP: https://docs.datadoghq.com/tracing/trace_pipeline/ingestion_mechanisms/
_DOGSTATSD_SOCKET = Path("/var/run/datadog/dsd.socket")
# The trace view cuts longer values itself (25,000 characters); DogStatsD drops events above 8 KB.
_MAX_VALUE = 25000
_MAX_EVENT_BYTES = 4000
_FORCED = ("DD_TRACE_LOGGING_RATE",)
_ICMP_WITHIN_S = 0.01
_DDTRACE_ENVIRONMENT = {
    # v0.5 answered by 404 breaks the downgrade to v0.4 in ddtrace 4.16, and loses the payload.
    "DD_TRACE_API_VERSION": "v0.4",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_STARTUP_LOGS": "false",
    # A failed delivery is known by its log line only; by default the same line comes once in a minute.
    "DD_TRACE_LOGGING_RATE": "0",
    # One run is one payload, sent when we say so and never by the background thread.
    "DD_TRACE_PARTIAL_FLUSH_ENABLED": "false",
    "DD_TRACE_WRITER_INTERVAL_SECONDS": "3600",
}


class DatadogTarget:
    """
    A Datadog Agent, found by the standard `DD_*` variables.

    Args:
        environ: the process environment; ddtrace's settings are put there before ddtrace is imported.
    """

    name = "datadog"

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._environ = environ
        self._tracer: Any = None
        self._statsd: Any = None

    def send(self, batch: Batch) -> None:
        """Send a batch, metrics first: they are quick, and the spans may wait for a slow Agent."""
        reasons: dict[str, str] = {}
        for send, wanted in (
            (self._send_metrics, batch.points or batch.events),
            (self._send_spans, batch.spans),
        ):
            if not wanted or (send == self._send_spans and tracing_disabled(self._environ)):
                continue
            try:
                send(batch)
            except ExportError as error:
                reasons |= error.reasons
        if reasons:
            raise ExportError(reasons)

    def _send_spans(self, batch: Batch) -> None:
        tracer = self._tracer = self._tracer or _import_tracer(self._environ, batch)
        # A failed delivery is logged by ddtrace's writer, and nowhere else to be seen.
        with complaints("ddtrace.internal.writer") as failures:
            known: dict[int, Any] = {}
            for span in batch.spans:
                known[span.span_id] = _start(tracer, span, batch.env, known)
            for span in reversed(batch.spans):
                known[span.span_id].finish(finish_time=span.end_ns / 1e9)
            tracer.flush()
        if failures:
            raise ExportError({TRACES: f"the Datadog Agent did not take the spans: {failures[0]}"})

    def _send_metrics(self, batch: Batch) -> None:
        statsd = self._statsd = self._statsd or _dogstatsd(self._environ)
        senders: dict[MetricType, Callable[..., None]] = {
            MetricType.COUNT: statsd.increment,
            MetricType.GAUGE: statsd.gauge,
            MetricType.DISTRIBUTION: statsd.distribution,
        }
        for point in batch.points:
            senders[point.metric.type](point.metric.name, _number(point), tags=tag_list(point.tags))
        for event in batch.events:
            statsd.event(
                event.title,
                event.text.encode()[:_MAX_EVENT_BYTES].decode(errors="ignore"),
                alert_type=event.alert_type,
                aggregation_key=event.aggregation_key[:100],
                date_happened=event.time_ns // 10**9,
                tags=tag_list(event.tags),
            )
        if not statsd.flush() or _refused(statsd):
            where = statsd.socket_path or f"{statsd.host}:{statsd.port}"
            raise ExportError(dict.fromkeys((METRICS, EVENTS), f"DogStatsD at {where} did not take the metrics"))


def _refused(statsd: Any) -> bool:
    """Whether the host has answered our datagrams by saying that nobody listens; a remote one may be late or mute."""
    if statsd.socket_path:
        return False
    time.sleep(_ICMP_WITHIN_S)
    return bool(statsd.get_socket().getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def _number(point: Point) -> float:
    return int(point.value) if float(point.value).is_integer() else point.value


def _import_tracer(environ: MutableMapping[str, str], batch: Batch) -> Any:
    for name, value in _DDTRACE_ENVIRONMENT.items():
        environ[name] = value if name in _FORCED else environ.get(name, value)
    # With `otlp` here ddtrace would send by OTLP, which is our other target's business.
    environ.pop("OTEL_TRACES_EXPORTER", None)
    # A service other than DD_SERVICE would lose its version.
    environ.update({"DD_SERVICE": batch.service, "DD_VERSION": batch.version})
    if batch.env:
        environ.setdefault("DD_ENV", batch.env)
    previous = signal.getsignal(signal.SIGTERM)
    from ddtrace.trace import tracer

    if signal.getsignal(signal.SIGTERM) is not previous:
        # ddtrace wraps the handler to shut its tracer down before anybody else is asked.
        signal.signal(signal.SIGTERM, previous)
    return tracer


def _start(tracer: Any, span: Span, env: str, known: dict[int, Any]) -> Any:
    from ddtrace.trace import Context

    parent = known.get(span.parent_id or 0)
    made = tracer.start_span(
        span.operation,
        child_of=parent or Context(trace_id=span.trace_id, span_id=span.parent_id, sampling_priority=_KEEP),
        service=span.service,
        resource=span.resource[:5000],
        span_type=schema.SPAN_TYPE if span.measured else None,
        activate=False,
    )
    made.span_id = span.span_id
    made.start_ns = span.start_ns
    for name, value in span.all_attributes().items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            made.set_tag(name, str(value)[:_MAX_VALUE])
        else:
            made.set_metric(name, value)
    if span.version:
        made.set_tag("version", span.version)
    if env:
        # A process that sends what others left has one DD_ENV, and they may have had another.
        made.set_tag("env", env)
    if span.measured:
        made.set_tag("span.kind", "consumer")
        made.set_metric("_dd.measured", 1)
    for trace_id, span_id in span.links:
        made.set_link(trace_id, span_id)
    if span.events:
        events = [
            {"name": event.name, "time_unix_nano": event.time_ns, "attributes": event.attributes}
            for event in span.events
        ]
        made.set_tag("events", json.dumps(events))
    made.error = 1 if span.error else 0
    return made


def _dogstatsd(environ: MutableMapping[str, str]) -> Any:
    from datadog.dogstatsd import DogStatsd

    options: dict[str, Any] = {}
    if not environ.get("DD_DOGSTATSD_URL") and not environ.get("DD_AGENT_HOST"):
        host = urlsplit(environ.get("DD_TRACE_AGENT_URL", "")).hostname
        if host:
            options["host"] = host
        elif _DOGSTATSD_SOCKET.is_socket():
            options["socket_path"] = str(_DOGSTATSD_SOCKET)
    statsd = DogStatsd(
        disable_buffering=False,
        flush_interval=0,
        disable_telemetry=True,
        socket_timeout=2,
        max_buffer_len=1400,
        **options,
    )
    # Its own env, service and version tags would double ours, which are the model's.
    ours = (f"{schema.TAG_ENV}:", f"{schema.TAG_SERVICE}:", f"{schema.TAG_VERSION}:")
    statsd.constant_tags = [tag for tag in statsd.constant_tags or [] if not tag.startswith(ours)]
    return statsd
