"""
Batches read back from the OTLP/JSON of `otlp_json`, so that what waited on disk goes to any target with the same ids.

A file may be cut, edited, or written by another version: whatever is not ours is a `ValueError`, and nothing else.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from typing import Any

from batch_observability import schema
from batch_observability.export.otlp_json import ERROR_NAMES, ESCAPE, EVENT_NAMES, SEVERITIES, Json, names_of_span
from batch_observability.export.signals import (
    EVENTS,
    LOGS,
    METRICS,
    TRACES,
    Batch,
    Error,
    Event,
    LogRecord,
    Point,
    Span,
    SpanEvent,
)
from batch_observability.schema import MetricType

_MAX_DEPTH = 50
_DATA = {MetricType.COUNT: "sum", MetricType.GAUGE: "gauge", MetricType.DISTRIBUTION: "histogram"}
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
_ERROR_CODE = 2


def decode(signal: str, document: Json, name: str) -> Batch:
    """
    Make the batch again from one document of `otlp_json.encode`.

    Integers beyond 64 bits, which OTLP does not have, come back as the nearest double.

    Args:
        signal: which document it is: `traces`, `metrics`, `logs` or `events`.
        document: as `json.loads` gives it.
        name: of the batch; the document does not hold it.

    Raises:
        ValueError: it is not such a document, or names a metric that this version does not know; one line.
    """
    try:
        return _batch(signal, document, name)
    except ValueError as error:
        raise ValueError(f"not a document of {signal} that this version can read: {error}") from None


def _batch(signal: str, document: Json, name: str) -> Batch:
    if signal == TRACES:
        resources = _objects(document, "resourceSpans")
        service, version, env = _resource(resources)
        spans = tuple(span for resource in resources for span in _spans(resource, env))
        return Batch(service, version, env, name, spans=spans)
    if signal == METRICS:
        resources = _objects(document, "resourceMetrics")
        metrics = _entries(resources, "scopeMetrics", "metrics")
        return Batch(*_resource(resources), name, points=tuple(point for item in metrics for point in _points(item)))
    if signal not in {LOGS, EVENTS}:
        raise ValueError("there is no such signal")
    resources = _objects(document, "resourceLogs")
    entries = _scoped(resources, "scopeLogs", "logRecords")
    if signal == LOGS:
        return Batch(
            *_resource(resources), name, logs=tuple(_record(entry, _logger(scope)) for scope, entry in entries)
        )
    return Batch(*_resource(resources), name, events=tuple(_event(entry) for _, entry in entries))


# --- Parts ------------------------------------------------------------------------------------------------------


def _resource(resources: list[Json]) -> tuple[str, str, str]:
    """Return service, version and environment of the first, which is the batch's own."""
    if not resources:
        raise ValueError("it has no resource")
    attributes = _attributes(_get(resources[0], "resource", dict))
    names = ("service.name", "service.version", "deployment.environment.name")
    service, version, env = (_get(attributes, name, str, "") for name in names)
    return service, version, env


def _entries(resources: list[Json], scopes: str, entries: str) -> Iterator[Json]:
    """Yield what the only resource of a document holds."""
    return (entry for _, entry in _scoped(resources, scopes, entries))


def _scoped(resources: list[Json], scopes: str, entries: str) -> Iterator[tuple[Json, Json]]:
    """Yield the same, each with its scope."""
    if len(resources) > 1:
        raise ValueError("it has several resources")
    for resource in resources:
        for scope in _objects(resource, scopes):
            for entry in _objects(scope, entries):
                yield scope, entry


def _spans(resource: Json, env: str) -> Iterator[Span]:
    service, version, own_env = _resource([resource])
    if own_env != env:
        raise ValueError("it has several environments")
    for entry in _entries([resource], "scopeSpans", "spans"):
        yield _span(entry, service, version)


def _span(entry: Json, service: str, version: str) -> Span:
    operation = _get(entry, "name", str)
    failed = _get(entry, "status", dict, {}).get("code") == _ERROR_CODE
    names = names_of_span(measured=operation == schema.RUN, failed=failed)
    own, attributes = _split(_attributes(entry), names)
    error = (_get(own, name, str, "") for name in ERROR_NAMES)
    return Span(
        operation=operation,
        resource=_get(own, "resource.name", str),
        service=service,
        version=version,
        trace_id=_id(entry, "traceId", 16),
        span_id=_id(entry, "spanId", 8),
        parent_id=_id(entry, "parentSpanId", 8) if entry.get("parentSpanId") else None,
        start_ns=_time(entry, "startTimeUnixNano"),
        end_ns=_time(entry, "endTimeUnixNano"),
        attributes=attributes,
        error=Error(*error) if failed else None,
        events=tuple(
            SpanEvent(_time(event, "timeUnixNano"), _get(event, "name", str), _attributes(event))
            for event in _objects(entry, "events", [])
        ),
        links=tuple((_id(link, "traceId", 16), _id(link, "spanId", 8)) for link in _objects(entry, "links", [])),
    )


def _points(entry: Json) -> Iterator[Point]:
    name = _get(entry, "name", str)
    metric = schema.METRICS.get(name)
    if metric is None:
        raise ValueError(f"this version has no metric {_shown(name)}")
    for data_point in _objects(_get(entry, _DATA[metric.type], dict), "dataPoints"):
        if metric.type is MetricType.DISTRIBUTION and _integer(data_point, "count") != 1:
            raise ValueError(f"a data point of {name} holds several values")
        value = "sum" if metric.type is MetricType.DISTRIBUTION else "asDouble"
        yield Point(metric, _double(data_point.get(value)), _texts(_attributes(data_point)))


def _logger(scope: Json) -> str:
    name: str = _get(_get(scope, "scope", dict, {}), "name", str, "")
    return name


def _record(entry: Json, logger: str) -> LogRecord:
    level = _get(entry, "severityText", str).lower()
    if level not in SEVERITIES:
        raise ValueError(f"there is no level {_shown(level)}")
    return LogRecord(
        time_ns=_time(entry, "timeUnixNano"),
        level=level,
        event=_get(_get(entry, "body", dict), "stringValue", str),
        trace_id=_id(entry, "traceId", 16),
        span_id=_id(entry, "spanId", 8),
        attributes=_attributes(entry),
        logger=logger,
    )


def _event(entry: Json) -> Event:
    own, tags = _split(_attributes(entry), EVENT_NAMES)
    body = _get(_get(entry, "body", dict), "stringValue", str)
    title = _get(own, "title", str)
    if not body.startswith(f"{title}\n"):
        raise ValueError("the body of an event does not begin with its title")
    return Event(
        title=title,
        text=body[len(title) + 1 :],
        alert_type=_get(own, "alert_type", str),
        aggregation_key=_get(own, "aggregation_key", str),
        tags=_texts(tags),
        time_ns=_time(entry, "timeUnixNano"),
    )


def _split(attributes: dict[str, Any], names: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the attributes that we added, and those that were given."""
    own = {key: value for key, value in attributes.items() if key in names}
    given = {key.removeprefix(ESCAPE): value for key, value in attributes.items() if key not in names}
    return own, given


# --- Values -----------------------------------------------------------------------------------------------------


def _shown(value: Any) -> str:
    return reprlib.repr(value)[:80]


def _get(holder: Any, key: str, kind: type, default: Any = None) -> Any:
    """Return what an object holds under a key; it is of this type, or the object is malformed."""
    value = holder.get(key, default) if isinstance(holder, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"{key} is {_shown(value)}")  # noqa: TRY004 - the input is at fault, not the caller
    return value


def _objects(holder: Any, key: str, default: Any = None) -> list[Json]:
    values: list[Json] = _get(holder, key, list, default)
    if not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{key} is {_shown(values)}")
    return values


def _attributes(holder: Json, key: str = "attributes", depth: int = 0) -> dict[str, Any]:
    return {_get(item, "key", str): _value(_get(item, "value", dict), depth) for item in _objects(holder, key, [])}


def _value(value: Json, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("an attribute is nested too deeply")
    kind = next(iter(value), "")
    match kind:
        case "":
            return None
        case "boolValue":
            return _get(value, kind, bool)
        case "intValue":
            return _integer(value, kind)
        case "doubleValue":
            return _double(value[kind])
        case "stringValue":
            return _get(value, kind, str)
        case "kvlistValue":
            return _attributes(_get(value, kind, dict), "values", depth + 1)
        case "arrayValue":
            return [_value(item, depth + 1) for item in _objects(_get(value, kind, dict), "values", [])]
    raise ValueError(f"a value is {_shown(value)}")


def _integer(holder: Json, key: str) -> int:
    """Read a 64-bit integer, which may be written as text."""
    value = holder.get(key)
    if isinstance(value, str) and len(value) <= 20 and value.isascii() and value.removeprefix("-").isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**64:
        raise ValueError(f"{key} is {_shown(value)}")
    return value


def _time(holder: Json, key: str) -> int:
    value = _integer(holder, key)
    if value < 0:
        raise ValueError(f"{key} is {value}")
    return value


def _double(value: Any) -> float:
    if isinstance(value, float) or value in _NOT_FINITE:
        return float(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 2**1000:
        raise ValueError(f"a number is {_shown(value)}")
    return float(value)


def _id(holder: Json, key: str, size: int) -> int:
    """Read an id of so many bytes in hex."""
    value = _get(holder, key, str)
    if len(value) != 2 * size or not set(value) <= set("0123456789abcdefABCDEF"):
        raise ValueError(f"{key} is {_shown(value)}")
    return int(value, 16)


def _texts(attributes: dict[str, Any]) -> dict[str, str]:
    for key, value in attributes.items():
        if not isinstance(value, str):
            raise ValueError(f"tag {_shown(key)} is {_shown(value)}")  # noqa: TRY004 - as above
    return attributes
