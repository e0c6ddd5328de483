"""
All that is known of a run when it starts, as plain values. Standard library only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields
from typing import Any

from batch_observability import schema
from batch_observability.ids import hex_trace_id

# Variables by which the processes of a job find their run: where its frames are taken, and its context as JSON.
CHANNEL_VARIABLE, RUN_VARIABLE = "BATCHOBS_CHANNEL", "BATCHOBS_RUN"


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
        due_ns: when the run was due, None if that is not known.
        slot: what tells this due run from all others of its task or job.
        clear_number: how often its DAG run was cleared.
        backfill: it makes up for the past.
        declared_ns: since when its task is known as a batch model on this host, None if that is not known.
        retries_left: it will be tried again if it fails.
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
    slot: str = ""
    clear_number: int = 0
    backfill: bool = False
    declared_ns: int | None = None
    retries_left: bool = False
    resumed: bool = False
    env: str = ""

    @property
    def is_first_try(self) -> bool:
        """Whether it is the first attempt at what is due."""
        return int(self.attributes.get(schema.TRY_NUMBER, 1)) <= 1


def context_of(values: dict[str, Any]) -> RunContext:
    """Read a context as `dataclasses.asdict` gives it, also after a way through JSON; what is not known is left out."""
    known = {f.name for f in fields(RunContext)}
    values = {name: value for name, value in values.items() if name in known}
    return RunContext(**{**values, "linked_spans": tuple(map(tuple, values.get("linked_spans", ())))})


def metric_tags(model: dict[str, Any], env: str, source: str, of_source: dict[str, str]) -> dict[str, str]:
    """Return the tags of all metrics of a model; `of_source` are those that its source has."""
    tags = {
        schema.TAG_ENV: env,
        schema.TAG_SERVICE: model["service"],
        schema.TAG_VERSION: model["version"],
        schema.TAG_MODEL: model["name"],
        schema.TAG_OWNER: model["owner"],
        schema.TAG_TIER: model["tier"],
        schema.TAG_SOURCE: source,
        **of_source,
    }
    return {name: value for name, value in tags.items() if value}


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
