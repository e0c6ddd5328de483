"""
Signals in the OTLP/JSON encoding, which an OpenTelemetry Collector's `otlpjsonfile` receiver reads.

Format: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding (ids in hex, 64-bit integers as strings).
Standard library only: this is what the spool holds when nothing else is installed. `otlp_read` makes the batch again:
what the format has no place for is written as extra attributes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from typing import Any

from batch_observability import schema
from batch_observability._version import __version__
from batch_observability.export.signals import (
    EVENTS,
    LOGS,
    METRICS,
    OWN_LOGGER,
    TRACES,
    Attribute,
    Batch,
    Event,
    LogRecord,
    Point,
    Span,
)
from batch_observability.ids import hex_span_id, hex_trace_id
from batch_observability.schema import MetricType
from batch_observability.usage import host_name

Json = dict[str, Any]

SCOPE = {"name": OWN_LOGGER, "version": __version__}
SEVERITIES = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
# An attribute of a span, or a tag of an event, whose name is one of ours goes under its name behind this.
ESCAPE = "attribute."
EVENT_NAMES = frozenset({"title", "alert_type", "aggregation_key"})
# In the order of the fields of `Error`.
ERROR_NAMES = (schema.ERROR_TYPE, schema.ERROR_MESSAGE, schema.ERROR_STACK, schema.ERROR_FINGERPRINT)
_KIND_INTERNAL, _KIND_CONSUMER = 1, 5
_DELTA = 1


def encode(batch: Batch, now_ns: int) -> dict[str, Json]:
    """
    Encode a batch.

    Returns:
        Up to four OTLP/JSON documents by signal: `traces`, `metrics`, `logs`, and `events` as log records.
    """
    documents: dict[str, Json] = {}
    if batch.spans:
        documents[TRACES] = {"resourceSpans": _resource_spans(batch)}
    resource = _resource(batch.service, batch.version, batch.env)
    if batch.points:
        metrics = [_metric(point, now_ns) for point in batch.points]
        documents[METRICS] = {
            "resourceMetrics": [{"resource": resource, "scopeMetrics": [{"scope": SCOPE, "metrics": metrics}]}]
        }
    records = {
        LOGS: [
            {"scope": scope_of(logger), "logRecords": [_record(record) for record in of_logger]}
            for logger, of_logger in groupby(batch.logs, key=lambda record: record.logger)
        ],
        EVENTS: [{"scope": SCOPE, "logRecords": [_event_record(event) for event in batch.events]}],
    }
    for signal, entries in records.items():
        if signal in batch.signals:
            documents[signal] = {"resourceLogs": [{"resource": resource, "scopeLogs": entries}]}
    return documents


def scope_of(logger: str) -> Json:
    """Return the scope of a logger's records: its name; the version is ours only."""
    return SCOPE if logger == OWN_LOGGER else {"name": logger}


def _resource_spans(batch: Batch) -> list[Json]:
    """Spans by service in their order; the first resource is the batch's own, with no spans if they are of others."""
    own = batch.service, batch.version
    groups = [(key, list(spans)) for key, spans in groupby(batch.spans, key=lambda span: (span.service, span.version))]
    if groups[0][0] != own:
        groups.insert(0, (own, []))
    return [
        {
            "resource": _resource(service, version, batch.env),
            "scopeSpans": [{"scope": SCOPE, "spans": [_span(span) for span in spans]}] if spans else [],
        }
        for (service, version), spans in groups
    ]


def _resource(service: str, version: str, env: str) -> Json:
    return {"attributes": _attributes(resource_attributes(service, version, env))}


def resource_attributes(service: str, version: str, env: str) -> dict[str, Attribute]:
    """Resource attributes by OpenTelemetry's names; empty ones are left out."""
    attributes = {
        "service.name": service,
        "service.version": version,
        "deployment.environment.name": env,
        schema.HOST_NAME: host_name(),
    }
    return {name: value for name, value in attributes.items() if value}


def span_attributes(span: Span) -> dict[str, Attribute]:
    """Attributes of a span with those that make Datadog's OTLP intake see what ddtrace would have sent."""
    attributes = {**span.all_attributes(), "operation.name": span.operation, "resource.name": span.resource}
    if span.measured:
        attributes |= {"span.type": schema.SPAN_TYPE, "_dd.measured": 1}
    return attributes


def names_of_span(*, measured: bool, failed: bool) -> frozenset[str]:
    """Names of the attributes that a span has beside those that it was given."""
    names = frozenset({"operation.name", "resource.name"})
    return names | ({"span.type", "_dd.measured"} if measured else set()) | (set(ERROR_NAMES) if failed else set())


def _escaped(attributes: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {
        f"{ESCAPE}{key}" if key in names or key.startswith(ESCAPE) else key: value for key, value in attributes.items()
    }


def _value(value: Any) -> Json:
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return {"intValue": str(value)}
    if isinstance(value, int | float):
        return {"doubleValue": _double(value)}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": _attributes(value)}}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {"stringValue": str(value)}


def _double(value: float) -> float | str:
    """Return a number as a double; JSON has no infinity and no NaN, protobuf's JSON writes them as text."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if math.isnan(number):
        return "NaN"
    return number if math.isfinite(number) else f"{'-' if number < 0 else ''}Infinity"


def _attributes(attributes: dict[str, Any]) -> list[Json]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _span(span: Span) -> Json:
    names = names_of_span(measured=span.measured, failed=span.error is not None)
    attributes = span_attributes(replace(span, attributes=_escaped(span.attributes, names)))
    document: Json = {
        "traceId": hex_trace_id(span.trace_id),
        "spanId": hex_span_id(span.span_id),
        "name": span.operation,
        "kind": _KIND_CONSUMER if span.measured else _KIND_INTERNAL,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes(attributes),
        "status": {"code": 2, "message": span.error.message} if span.error else {},
        "flags": 1,
    }
    if span.parent_id:
        document["parentSpanId"] = hex_span_id(span.parent_id)
    if span.events:
        document["events"] = [
            {
                "timeUnixNano": str(event.time_ns),
                "name": event.name,
                "attributes": _attributes(event.attributes),
            }
            for event in span.events
        ]
    if span.links:
        document["links"] = [
            {"traceId": hex_trace_id(trace_id), "spanId": hex_span_id(span_id)} for trace_id, span_id in span.links
        ]
    return document


def _metric(point: Point, now_ns: int) -> Json:
    metric = point.metric
    stamp = {
        "attributes": _attributes(dict(point.tags)),
        "startTimeUnixNano": str(now_ns),
        "timeUnixNano": str(now_ns),
    }
    document: Json = {"name": metric.name, "unit": metric.unit, "description": metric.description}
    if metric.type is MetricType.COUNT:
        data = {"dataPoints": [{**stamp, "asDouble": _double(point.value)}]}
        document["sum"] = {**data, "aggregationTemporality": _DELTA, "isMonotonic": True}
    elif metric.type is MetricType.GAUGE:
        document["gauge"] = {"dataPoints": [{**stamp, "asDouble": _double(point.value)}]}
    else:
        value = _double(point.value)
        data_point = {**stamp, "count": "1", "sum": value, "min": value, "max": value, "bucketCounts": ["1"]}
        document["histogram"] = {"dataPoints": [data_point], "aggregationTemporality": _DELTA}
    return document


def _record(record: LogRecord) -> Json:
    return {
        "timeUnixNano": str(record.time_ns),
        "observedTimeUnixNano": str(record.time_ns),
        "severityNumber": SEVERITIES[record.level],
        "severityText": record.level.upper(),
        "body": {"stringValue": record.event},
        "attributes": _attributes(record.attributes),
        "traceId": hex_trace_id(record.trace_id),
        "spanId": hex_span_id(record.span_id),
    }


def _event_record(event: Event) -> Json:
    level = event.alert_type if event.alert_type in {"error", "warning"} else "info"
    own = {"title": event.title, "alert_type": event.alert_type, "aggregation_key": event.aggregation_key}
    return {
        "timeUnixNano": str(event.time_ns),
        "observedTimeUnixNano": str(event.time_ns),
        "severityNumber": SEVERITIES[level],
        "severityText": level.upper(),
        "body": {"stringValue": f"{event.title}\n{event.text}"},
        "attributes": _attributes({**own, **_escaped(event.tags, EVENT_NAMES)}),
    }
