"""
What leaves the system, as plain values: one vocabulary for all targets, each of which writes it in its own format.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from batch_observability import schema
from batch_observability.schema import Metric

TRACES, METRICS, LOGS, EVENTS = "traces", "metrics", "logs", "events"
OWN_LOGGER = "batch_observability"
Attribute = str | int | float | bool


@dataclass(frozen=True)
class Error:
    """Why a span is an error span."""

    type: str
    message: str
    stack: str = ""
    fingerprint: str = ""


@dataclass(frozen=True)
class SpanEvent:
    """Something that happened during a span, at a Unix time in nanoseconds."""

    time_ns: int
    name: str
    attributes: dict[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """A finished span; times are Unix times in nanoseconds, ids as integers, `parent_id` None for a root."""

    operation: str
    resource: str
    service: str
    version: str
    trace_id: int
    span_id: int
    parent_id: int | None
    start_ns: int
    end_ns: int
    attributes: dict[str, Attribute] = field(default_factory=dict)
    error: Error | None = None
    events: tuple[SpanEvent, ...] = ()
    links: tuple[tuple[int, int], ...] = ()

    @property
    def measured(self) -> bool:
        """Whether Datadog computes trace metrics for it."""
        return self.operation == schema.RUN

    def all_attributes(self) -> dict[str, Attribute]:
        """Attributes with those of the error."""
        if self.error is None:
            return self.attributes
        error = {
            schema.ERROR_TYPE: self.error.type,
            schema.ERROR_MESSAGE: self.error.message,
            schema.ERROR_STACK: self.error.stack,
            schema.ERROR_FINGERPRINT: self.error.fingerprint,
        }
        return {**self.attributes, **{key: value for key, value in error.items() if value}}


@dataclass(frozen=True)
class Point:
    """One value of a metric."""

    metric: Metric
    value: float
    tags: dict[str, str]


@dataclass(frozen=True)
class LogRecord:
    """One log record; `attributes` are fields of `schema.LOG_FIELDS`, and those that a user's own line has."""

    time_ns: int
    level: str
    event: str
    trace_id: int
    span_id: int
    attributes: dict[str, Any]
    logger: str = OWN_LOGGER


@dataclass(frozen=True)
class Event:
    """Something that a person should see: title, text, `error`, `warning`, `success` or `info`."""

    title: str
    text: str
    alert_type: str
    aggregation_key: str
    tags: dict[str, str]
    time_ns: int


@dataclass(frozen=True)
class Batch:
    """All signals of one run or DAG run, with the resource that they are of."""

    service: str
    version: str
    env: str
    name: str
    spans: tuple[Span, ...] = ()
    points: tuple[Point, ...] = ()
    logs: tuple[LogRecord, ...] = ()
    events: tuple[Event, ...] = ()

    @property
    def signals(self) -> frozenset[str]:
        """The signals that it holds."""
        held = {TRACES: self.spans, METRICS: self.points, LOGS: self.logs, EVENTS: self.events}
        return frozenset(signal for signal, values in held.items() if values)

    def only(self, signals: frozenset[str]) -> Batch:
        """Return the batch with only these of `traces`, `metrics`, `logs`, `events`."""
        return replace(
            self,
            spans=self.spans if TRACES in signals else (),
            points=self.points if METRICS in signals else (),
            logs=self.logs if LOGS in signals else (),
            events=self.events if EVENTS in signals else (),
        )


def tag_list(tags: dict[str, str]) -> list[str]:
    """Tags as Datadog writes them, `name:value`."""
    return [f"{name}:{value}" for name, value in tags.items()]
