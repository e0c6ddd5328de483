"""
The spans of a DAG run that has ended and of its task tries, from Airflow's own records.

Sent where Airflow's own tracing is off; the run spans, sent earlier, point at them already.
"""

from __future__ import annotations

import re

from batch_observability import schema
from batch_observability.airflow.records import Row
from batch_observability.channel import Frame
from batch_observability.export.signals import Attribute, Batch, Error, Span
from batch_observability.ids import TraceParent, derive_span_id, derive_trace_id, parse_traceparent

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_FINISHED_OK = ("success", "skipped")


def dag_run_signals(frame: Frame, rows: list[Row], service: str, env: str) -> Batch:
    """
    Return the span of a DAG run and one for each of its tries.

    Args:
        frame: as `scheduler.dag_run_ended` sends it.
        rows: its tries, as Airflow recorded them.
        service: of the spans.
        env: deployment environment.
    """
    dag_id, run_id = frame["dag_id"], frame["run_id"]
    place = parse_traceparent(frame["traceparent"]) or derived_place(dag_id, run_id)
    tries = [row for row in rows if _belongs(row, place.trace_id)]
    spans = [_dag_run_span(frame, place, service)]
    spans += [_try_span(row, place, service) for row in tries]
    return Batch(service, "", env, f"{dag_id}-{run_id}", spans=tuple(spans))


def derived_place(dag_id: str, run_id: str) -> TraceParent:
    """Return the place in a trace of a DAG run that Airflow gave none."""
    return TraceParent(derive_trace_id(schema.DAG_RUN, dag_id, run_id), derive_span_id(schema.DAG_RUN, dag_id, run_id))


def carried_place(row: Row) -> TraceParent | None:
    """Return the place in a trace that a try was given."""
    found = _TRACEPARENT.search(str(row["context_carrier"]))
    return parse_traceparent(found[0]) if found else None


def _belongs(row: Row, trace_id: int) -> bool:
    """Whether a try ran, has ended, and is in this trace: a cleared DAG run has tries of earlier traces."""
    if not row["try_number"] or not row["start_date"] or not row["end_date"]:
        return False
    carried = carried_place(row)
    return carried is None or carried.trace_id == trace_id


def _dag_run_span(frame: Frame, place: TraceParent, service: str) -> Span:
    end_ns = frame["end_ns"]
    failed = frame["state"] != "success"
    return Span(
        operation=schema.DAG_RUN,
        resource=frame["dag_id"],
        service=service,
        version="",
        trace_id=place.trace_id,
        span_id=place.span_id,
        parent_id=None,
        start_ns=min(frame["begin_ns"] or end_ns, end_ns),
        end_ns=end_ns,
        attributes={
            schema.DAG_ID: frame["dag_id"],
            schema.DAG_RUN_ID: frame["run_id"],
            schema.DAG_RUN_STATE: frame["state"],
            schema.DAG_RUN_TYPE: frame["run_type"],
        },
        error=Error("DagRunFailed", f"DAG run {frame['run_id']} ended as {frame['state']}") if failed else None,
    )


def _try_span(row: Row, place: TraceParent, service: str) -> Span:
    state = str(row["state"] or "none")
    attributes: dict[str, Attribute] = {
        schema.DAG_ID: row["dag_id"],
        schema.TASK_ID: row["task_id"],
        schema.DAG_RUN_ID: row["run_id"],
        schema.TRY_NUMBER: row["try_number"],
        schema.MAP_INDEX: row["map_index"],
        schema.TASK_STATE: state,
        schema.TASK_INSTANCE_ID: str(row["id"]),
        schema.OPERATOR: row["operator"] or "",
        schema.HOST_NAME: row["hostname"] or "",
    }
    start_ns, end_ns = (int(row[name].timestamp() * 1e9) for name in ("start_date", "end_date"))
    error = None if state in _FINISHED_OK else Error("TaskFailed", f"try {row['try_number']} ended as {state}")
    return Span(
        operation=schema.TASK,
        resource=f"{row['dag_id']}.{row['task_id']}",
        service=service,
        version="",
        trace_id=place.trace_id,
        span_id=derive_span_id(schema.TASK, row["id"]),
        parent_id=place.span_id,
        start_ns=start_ns,
        end_ns=max(start_ns, end_ns),
        attributes={name: value for name, value in attributes.items() if value != ""},
        error=error,
    )
