"""
All that is known of a run when it starts, as plain values. Standard library only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from batch_observability import schema
from batch_observability.ids import hex_trace_id


@dataclass(frozen=True)
class RunContext:
    """
    All that is known of a run when it starts.

    Attributes:
        run_id: Airflow's task instance id, or a UUID.
        source: `airflow` or `cron`.
        resource: what the run span is a run of, `<dag_id>.<task_id>` or `<job>`.
        model: name, version, service, owner, tier and objectives of the model, as text.
        tags: the tags of the source: `dag_id` and `task_id`, or `job`.
        trace_id, span_id: of the run span.
        parent_id: span it hangs under, None for a root.
        orphan_parent_id: the same if a signal kills the process, whose own spans are then lost with it.
        linked_spans: (trace id, span id) pairs of runs that this one follows.
        attributes: further attributes of the run span, and fields of its log records.
        start_ns: Unix time in nanoseconds.
        due_ns: when the run was due, None if that is not known or not to be measured.
        resumed: the run was deferred or rescheduled and goes on.
    """

    run_id: str
    source: str
    resource: str
    model: dict[str, Any]
    tags: dict[str, str]
    trace_id: int
    span_id: int
    parent_id: int | None = None
    orphan_parent_id: int | None = None
    linked_spans: tuple[tuple[int, int], ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    start_ns: int = field(default_factory=time.time_ns)
    due_ns: int | None = None
    resumed: bool = False
    env: str = ""


def log_fields(context: RunContext) -> dict[str, Any]:
    """Fields of the log lines of a run, outside of a stage."""
    model = context.model
    fields = {
        schema.LOG_TRACE_ID: hex_trace_id(context.trace_id),
        schema.LOG_SPAN_ID: str(context.span_id),
        schema.LOG_SERVICE: model["service"],
        schema.LOG_ENV: context.env,
        schema.LOG_VERSION: model["version"],
        schema.LOG_MODEL_NAME: model["name"],
        schema.LOG_RUN_ID: context.run_id,
        **{key: value for key, value in context.attributes.items() if key in schema.LOG_FIELDS},
    }
    if schema.DAG_ID in fields:
        fields[schema.LOG_DD_DAG_ID] = fields[schema.DAG_ID]
        fields[schema.LOG_DD_RUN_ID] = fields[schema.DAG_RUN_ID]
        fields[schema.LOG_DD_TASK_ID] = fields[schema.TASK_ID]
    return {key: value for key, value in fields.items() if value != ""}
