"""
A run as signals: its span with its stages, metrics, the wide log record, and an event if it was killed; and as a row.

This is the only place where a run becomes signals, whoever survives to say it.
"""

from __future__ import annotations

from typing import Any

from batch_observability import schema
from batch_observability.context import RunContext, log_fields, metric_tags
from batch_observability.export.signals import (
    Attribute,
    Batch,
    Error,
    Event,
    LogRecord,
    Point,
    Span,
    SpanEvent,
)
from batch_observability.ids import hex_trace_id
from batch_observability.schema import Outcome
from batch_observability.sidecar.ending import Ending
from batch_observability.sidecar.observation import Observation
from batch_observability.sla.judge import NOTHING_PROMISED, Kept

_LEVELS = {Outcome.SUCCESS: "info", Outcome.SKIPPED: "info", Outcome.RETRYING: "warning"}


def started(context: RunContext) -> Batch:
    """Return the signals of a run that has begun."""
    points = (Point(schema.RUN_STARTED, 1, _tags(context)),)
    return _batch(context, f"{context.run_id}-started", points=points, logs=(_start_record(context),))


def finished(
    observation: Observation, ending: Ending, kept: Kept = NOTHING_PROMISED, *, host: str, with_start: bool
) -> Batch:
    """
    Return the signals of a run that has ended on a host, with its start if that has not been told yet.
    """
    context = observation.context
    spans = (_run_span(observation, ending, kept, host), *_stage_spans(observation, ending))
    points = [*_points(observation, ending), *_promise_points(context, kept)]
    logs = [_record(observation, ending, spans[0])]
    if with_start:
        points.insert(0, Point(schema.RUN_STARTED, 1, _tags(context)))
        logs.insert(0, _start_record(context))
    return _batch(
        context,
        context.run_id,
        spans=spans,
        points=tuple(points),
        logs=tuple(logs),
        events=(_killed_event(observation, ending),) if ending.outcome in (Outcome.KILLED, Outcome.LOST) else (),
    )


def _batch(context: RunContext, name: str, **signals: Any) -> Batch:
    return Batch(context.model["service"], context.model["version"], context.env, name, **signals)


def _tags(context: RunContext) -> dict[str, str]:
    return metric_tags(context.model, context.env, context.source, context.tags)


def _run_span(observation: Observation, ending: Ending, kept: Kept, host: str) -> Span:
    context, model = observation.context, observation.context.model
    rows = observation.total_rows or {}
    attributes: dict[str, Attribute] = {
        **_known_at_start(context),
        schema.OUTCOME: ending.outcome.value,
        schema.MEMORY_PEAK: observation.memory_peak,
        schema.CPU_TIME: round(observation.cpu_s, 6),
        schema.PROCESS_PID: ending.pid,
        schema.HOST_NAME: host,
    }
    if observation.memory_limit is not None:
        attributes[schema.MEMORY_LIMIT] = observation.memory_limit
    if observation.phase > 1:
        attributes |= {schema.PHASES: observation.phase, schema.WAITING_TIME: round(observation.waiting_s, 6)}
    names = {"read": schema.ROWS_READ, "written": schema.ROWS_WRITTEN, "rejected": schema.ROWS_REJECTED}
    attributes |= {names[name]: count for name, count in rows.items()}
    attributes |= _promise_attributes(kept)
    for measurement in observation.measurements:
        attributes[schema.MEASUREMENT.replace("<name>", measurement["name"])] = measurement["value"]
        if measurement["unit"]:
            attributes[schema.MEASUREMENT_UNIT.replace("<name>", measurement["name"])] = measurement["unit"]
    if ending.death and ending.death.signal:
        attributes[schema.SIGNAL] = ending.death.signal
    if ending.death and ending.death.exit_code is not None:
        attributes[schema.EXIT_CODE] = ending.death.exit_code
    if ending.outcome in schema.ERRORS and (stage := observation.failed_stage):
        attributes[schema.STAGE_NAME] = stage.name
    if observation.dropped:
        attributes[schema.DROPPED] = observation.dropped
    return Span(
        operation=schema.RUN,
        resource=context.resource,
        service=model["service"],
        version=model["version"],
        trace_id=context.trace_id,
        span_id=context.span_id,
        parent_id=_parent(context, ending),
        start_ns=context.start_ns,
        end_ns=max(ending.end_ns, context.start_ns),
        attributes={name: value for name, value in attributes.items() if value != ""},
        error=_error(ending),
        events=tuple(
            SpanEvent(event["ts"], schema.EVENT_TEXT, {"message": event["text"]}) for event in observation.events
        ),
        links=context.linked_spans,
    )


def _known_at_start(context: RunContext) -> dict[str, Attribute]:
    model = context.model
    promised = model["objectives"].items()
    promises = {schema.OBJECTIVE.replace("<objective>", objective): promise for objective, promise in promised}
    return {
        schema.MODEL_NAME: model["name"],
        schema.MODEL_VERSION: model["version"],
        schema.MODEL_OWNER: model["owner"],
        schema.MODEL_TIER: model["tier"],
        schema.RUN_ID: context.run_id,
        **context.attributes,
        **promises,
    }


def _promise_attributes(kept: Kept) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {}
    for one in kept.judgements:
        state = schema.MET if one.kept else schema.BREACHED
        attributes[schema.SLA_STATE.replace("<objective>", one.objective)] = state
        if one.margin_s is not None:
            attributes[schema.SLA_MARGIN_S.replace("<objective>", one.objective)] = round(one.margin_s, 6)
    if kept.extended_s:
        attributes[schema.SLA_EXTENDED] = kept.extended_s
    return attributes


def _promise_points(context: RunContext, kept: Kept) -> list[Point]:
    # What was broken is counted by who claims it, once for all who see it.
    tags = {one.objective: {**_tags(context), schema.TAG_OBJECTIVE: one.objective} for one in kept.judgements}
    points = [Point(schema.SLA_CHECKED, 1, tags[one.objective]) for one in kept.judgements if one.kept]
    points += [
        Point(schema.SLA_MARGIN, one.margin_s, tags[one.objective])
        for one in kept.judgements
        if one.margin_s is not None
    ]
    wide = ({**_tags(context), schema.TAG_OBJECTIVE: objective} for objective in kept.counted)
    return [*points, *(Point(schema.SLA_CHECKED, 1, one) for one in wide)]


def _parent(context: RunContext, ending: Ending) -> int | None:
    if ending.death is None or context.parent_id == context.orphan_parent_id:
        return context.parent_id
    # Airflow's own tracing: a failure is reported to the API server, which sends a span; an exit with 0 leaves none.
    return context.orphan_parent_id if ending.death.signal or ending.death.exit_code else None


def _error(ending: Ending) -> Error | None:
    if ending.outcome not in schema.ERRORS:
        return None
    return ending.error or Error("Error", f"the run ended as {ending.outcome}")


def _stage_spans(observation: Observation, ending: Ending) -> list[Span]:
    context = observation.context
    spans = []
    for stage in observation.stages.values():
        error = Error(**stage.error) if stage.error else None
        if stage.end_ns is None:
            error = ending.error or Error("StageNotEnded", "the run ended before the stage did")
        known_parent = stage.parent in observation.stages
        spans.append(
            Span(
                operation=schema.STAGE,
                resource=stage.name,
                service=context.model["service"],
                version=context.model["version"],
                trace_id=context.trace_id,
                span_id=stage.span_id,
                parent_id=stage.parent if known_parent else context.span_id,
                start_ns=stage.start_ns,
                end_ns=max(stage.end_ns or ending.end_ns, stage.start_ns),
                attributes={
                    schema.MODEL_NAME: context.model["name"],
                    schema.RUN_ID: context.run_id,
                    schema.STAGE_NAME: stage.name,
                },
                error=error,
            )
        )
    return spans


def _points(observation: Observation, ending: Ending) -> list[Point]:
    context = observation.context
    tags = _tags(context)
    outcome_tags = {**tags, schema.TAG_OUTCOME: ending.outcome.value}
    points = [
        Point(schema.RUN_FINISHED, 1, outcome_tags),
        Point(schema.RUN_DURATION, _seconds(context.start_ns, ending.end_ns), outcome_tags),
        Point(schema.METRIC_CPU_TIME, observation.cpu_s, tags),
        Point(schema.METRIC_MEMORY_PEAK, observation.memory_peak, tags),
    ]
    if context.due_ns is not None and context.is_first_try and not context.backfill:
        points.append(Point(schema.RUN_START_DELAY, _seconds(context.due_ns, context.start_ns), tags))
    if rows := observation.total_rows:
        points += [
            Point(schema.METRIC_ROWS_READ, rows["read"], tags),
            Point(schema.METRIC_ROWS_WRITTEN, rows["written"], tags),
            Point(schema.METRIC_ROWS_REJECTED, rows["rejected"], tags),
        ]
    for stage in observation.stages.values():
        duration = _seconds(stage.start_ns, stage.end_ns or ending.end_ns)
        points.append(Point(schema.STAGE_DURATION, duration, {**tags, schema.TAG_STAGE: stage.name}))
    for measurement in observation.measurements:
        measurement_tags = {**tags, schema.TAG_MEASUREMENT: measurement["name"]}
        points.append(Point(schema.METRIC_MEASUREMENT, measurement["value"], measurement_tags))
    if observation.dropped:
        dropped_tags = {**tags, schema.TAG_REASON: "frame"}
        points.append(Point(schema.TELEMETRY_DROPPED, observation.dropped, dropped_tags))
    if observation.dropped_logs:
        dropped_tags = {**tags, schema.TAG_REASON: "log"}
        points.append(Point(schema.TELEMETRY_DROPPED, observation.dropped_logs, dropped_tags))
    return points


def _seconds(start_ns: int, end_ns: int) -> float:
    return max(end_ns - start_ns, 0) / 1e9


def _start_record(context: RunContext) -> LogRecord:
    known = {name: value for name, value in _known_at_start(context).items() if value != ""}
    attributes = {**log_fields(context), **known}
    return LogRecord(context.start_ns, "info", schema.START_EVENT, context.trace_id, context.span_id, attributes)


def _record(observation: Observation, ending: Ending, run_span: Span) -> LogRecord:
    stages: dict[str, float] = {}
    for stage in observation.stages.values():
        seconds = _seconds(stage.start_ns, stage.end_ns or ending.end_ns)
        stages[stage.name] = round(stages.get(stage.name, 0.0) + seconds, 6)
    attributes: dict[str, Any] = {
        **log_fields(observation.context),
        **run_span.attributes,
        schema.LOG_DURATION: _seconds(run_span.start_ns, run_span.end_ns),
        schema.LOG_STAGES: stages,
    }
    if run_span.error:
        attributes |= {
            schema.LOG_ERROR_KIND: run_span.error.type,
            schema.LOG_ERROR_MESSAGE: run_span.error.message,
            schema.LOG_ERROR_STACK: run_span.error.stack,
        }
        if run_span.error.fingerprint:
            attributes[schema.LOG_ERROR_FINGERPRINT] = run_span.error.fingerprint
    level = _LEVELS.get(ending.outcome, "error")
    return LogRecord(ending.end_ns, level, schema.RUN_EVENT, run_span.trace_id, run_span.span_id, attributes)


def _killed_event(observation: Observation, ending: Ending) -> Event:
    context, model = observation.context, observation.context.model
    cause = ending.error.message if ending.error else "killed"
    memory = f"Memory peak {observation.memory_peak / 1e6:.0f} MB."
    lines = [f"{context.resource}: {cause}.", memory, f"Trace {hex_trace_id(context.trace_id)}."]
    if model.get("runbook"):
        lines.append(f"Runbook: {model['runbook']}")
    return Event(
        title=f"Batch model {model['name']} was {ending.outcome}",
        text="\n".join(lines),
        alert_type="error",
        aggregation_key=f"{model['name']}:killed",
        tags=_tags(context),
        time_ns=ending.end_ns,
    )
