"""Batches as a run makes them, with every kind of signal, for the real servers and for the spool."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace

from batch_observability import schema
from batch_observability.export.signals import Batch, Error, Event, LogRecord, Point, Span, SpanEvent

ENV, VERSION = "tést", "2.1"
DURATION_NS = 3_000_000_123


def new_trace_id() -> int:
    """Return a trace id whose upper and lower halves are both large: what a cut at 64 bits loses is seen."""
    return secrets.randbits(128) | 1 << 127 | 1 << 63


def run_batch(trace_id: int | None = None, *, service: str = "", env: str = ENV, name: str = "run") -> Batch:
    """Return what a run that failed in an inner stage sends: spans, all metric types, a log record, an event."""
    trace_id = trace_id or new_trace_id()
    service = service or f"service-{trace_id & 0xFFFFFFFF:08x}"
    end_ns = time.time_ns()
    start_ns = end_ns - DURATION_NS
    tags = {"env": env, "service": service, "version": VERSION, "model": "churn", "owner": "team é", "dag_id": "d"}
    tags = {name: value for name, value in tags.items() if value}
    return Batch(
        service,
        VERSION,
        env,
        name,
        spans=_spans(trace_id, service, start_ns, end_ns),
        points=_points(tags),
        logs=(_record(trace_id, end_ns),),
        events=(Event("Batch model churn was killed", "line one\nline two: é", "error", "churn:killed", tags, end_ns),),
    )


def _spans(trace_id: int, service: str, start_ns: int, end_ns: int) -> tuple[Span, ...]:
    run = Span(
        operation=schema.RUN,
        resource="dag.täsk",
        service=service,
        version=VERSION,
        trace_id=trace_id,
        span_id=secrets.randbits(63) | 1 << 63,
        parent_id=secrets.randbits(63) | 1,
        start_ns=start_ns,
        end_ns=end_ns,
        attributes={
            schema.MODEL_NAME: "churn",
            schema.OUTCOME: "failed",
            schema.ROWS_READ: 48210,
            schema.CPU_TIME: 1.25,
            "batch_model.flag": True,
            "batch_model.note": 'smørrebrød 🚂 "quoted"',
        },
        error=Error("ValueError", "no such airport: «XYZ»", 'Traceback:\n  File "x.py", line 1'),
        events=(
            SpanEvent(start_ns + 1, schema.EVENT_TEXT, {"message": "weather feed was stale ☁"}),
            SpanEvent(start_ns + 2, schema.EVENT_TEXT, {"message": "second"}),
        ),
        links=((new_trace_id(), secrets.randbits(63) | 1),),
    )
    outer = Span(
        operation=schema.STAGE,
        resource="score",
        service=service,
        version=VERSION,
        trace_id=trace_id,
        span_id=secrets.randbits(63) | 1,
        parent_id=run.span_id,
        start_ns=start_ns + 1_000_000_000,
        end_ns=end_ns - 5,
        attributes={schema.STAGE_NAME: "score"},
    )
    inner = replace(
        outer,
        resource="predict",
        span_id=secrets.randbits(63) | 1,
        parent_id=outer.span_id,
        start_ns=outer.start_ns + 7,
        end_ns=outer.end_ns - 7,
        error=Error("ValueError", "no such airport: «XYZ»"),
    )
    return run, outer, inner


def _points(tags: dict[str, str]) -> tuple[Point, ...]:
    failed = {**tags, schema.TAG_OUTCOME: "failed"}
    return (
        Point(schema.RUN_STARTED, 1, tags),
        Point(schema.RUN_FINISHED, 1, failed),
        Point(schema.RUN_DURATION, 3.5, failed),
        Point(schema.STAGE_DURATION, 2.5, {**tags, schema.TAG_STAGE: "score"}),
        Point(schema.STAGE_DURATION, 0.25, {**tags, schema.TAG_STAGE: "predict"}),
        Point(schema.METRIC_ROWS_READ, 48210, tags),
        Point(schema.SLA_MARGIN, -12.5, {**tags, schema.TAG_OBJECTIVE: "finish_within"}),
    )


def _record(trace_id: int, end_ns: int) -> LogRecord:
    attributes = {
        schema.LOG_MODEL_NAME: "churn",
        schema.LOG_DURATION: 3.5,
        schema.LOG_STAGES: {"score": 2.5, "predict": 0.25},
        schema.TRY_NUMBER: 2,
        schema.LOG_ERROR_MESSAGE: "no such airport: «XYZ»",
    }
    return LogRecord(end_ns, "error", schema.RUN_EVENT, trace_id, 1 << 62, attributes)
