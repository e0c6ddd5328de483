"""
Signals as records of the OpenTelemetry SDK, which its exporters and encoders take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batch_observability import schema
from batch_observability._version import __version__
from batch_observability.export.otlp_json import SEVERITIES, resource_attributes, scope_of, span_attributes
from batch_observability.export.signals import OWN_LOGGER, Batch, LogRecord, Span
from batch_observability.schema import MetricType

Resources = Callable[[str, str, str], Any]


def resources() -> Resources:
    """Make resources as the SDK does, so that `OTEL_RESOURCE_ATTRIBUTES` is heeded."""
    from opentelemetry.sdk.resources import Resource

    return lambda service, version, env: Resource.create(resource_attributes(service, version, env))


def spans(batch: Batch, resource_of: Resources) -> list[Any]:
    """Return the spans of a batch as the SDK would have ended them."""
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
            instrumentation_scope=InstrumentationScope(OWN_LOGGER, __version__),
        )

    return [convert(span) for span in batch.spans]


def metrics(batch: Batch, resource_of: Resources) -> Any:
    """Return the points of a batch as deltas of now; those of one metric with the same tags are put together."""
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
    meter = provider.get_meter(OWN_LOGGER, __version__)
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


def logs(batch: Batch, resource_of: Resources) -> list[Any]:
    """Return the log records of a batch, each in the scope of its logger."""
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
