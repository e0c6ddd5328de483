"""
A run as the ledger has it.
"""

from __future__ import annotations

from dataclasses import asdict

from batch_observability import schema
from batch_observability.ledger.records import Finished, Measurement, Paused, Run, Stage, Started
from batch_observability.run import RunContext
from batch_observability.sidecar.ending import Ending
from batch_observability.sidecar.observation import Observation
from batch_observability.sla.judge import NOTHING_PROMISED, Kept


def run_row(context: RunContext, pid: int, host: str) -> Run:
    """Return what is known of a run when it begins; `host` is that of its process."""
    values = context.attributes
    return Run(
        run_id=context.run_id,
        source=context.source,
        resource=context.resource,
        env=context.env,
        model=context.model,
        dag_id=context.tags.get(schema.TAG_DAG_ID, ""),
        task_id=context.tags.get(schema.TAG_TASK_ID, ""),
        job=context.tags.get(schema.TAG_JOB, ""),
        dag_run_id=str(values.get(schema.DAG_RUN_ID, "")),
        map_index=int(values.get(schema.MAP_INDEX, -1)),
        try_number=int(values.get(schema.TRY_NUMBER, 0)),
        clear_number=context.clear_number,
        trace_id=context.trace_id,
        span_id=context.span_id,
        host=host,
        pid=pid,
        due_ns=context.due_ns,
        start_ns=context.start_ns,
    )


def started(context: RunContext, pid: int, host: str) -> Started:
    """Return the change that opens a run."""
    return Started(run=run_row(context, pid, host), context=asdict(context))


def paused(observation: Observation, pid: int, host: str, state: str) -> Paused:
    """Return the change that says that a run has no process for now; `state` is what the next one goes on from."""
    paused_ns = observation.paused_ns or observation.phase_began_ns
    return Paused(run=run_row(observation.context, pid, host), state=state, paused_ns=paused_ns)


def finished(
    observation: Observation, ending: Ending, kept: Kept = NOTHING_PROMISED, *, host: str, token: str, closed_by: str
) -> Finished:
    """Return the change that closes a run; `token` is the same each time that this is told."""
    rows = observation.total_rows or {}
    failed = observation.failed_stage if ending.outcome in schema.ERRORS else None
    return Finished(
        run=run_row(observation.context, ending.pid, host),
        end_ns=max(ending.end_ns, observation.context.start_ns),
        outcome=ending.outcome.value,
        token=token,
        closed_by=closed_by,
        error_type=ending.error.type if ending.error else "",
        error_message=ending.error.message if ending.error else "",
        stage=failed.name if failed else "",
        signal=ending.death.signal if ending.death else "",
        exit_code=ending.death.exit_code if ending.death else None,
        rows_read=rows.get("read"),
        rows_written=rows.get("written"),
        rows_rejected=rows.get("rejected"),
        memory_peak=observation.memory_peak,
        memory_limit=observation.memory_limit,
        cpu_s=observation.cpu_s,
        waiting_s=observation.waiting_s,
        dropped=observation.dropped,
        kept=kept.mask,
        extended_s=kept.extended_s,
        margins=kept.margins,
        stages=tuple(
            Stage(
                span_id=stage.span_id,
                parent_id=stage.parent if stage.parent in observation.stages else observation.context.span_id,
                name=stage.name,
                start_ns=stage.start_ns,
                end_ns=max(stage.end_ns or ending.end_ns, stage.start_ns),
                error_type=_stage_error(stage.error, stage.end_ns, ending),
            )
            for stage in observation.stages.values()
        ),
        measurements=tuple(
            Measurement(name=one["name"], value=one["value"], unit=one["unit"], time_ns=one["ts"])
            for one in observation.measurements
        ),
    )


def _stage_error(error: dict[str, str] | None, end_ns: int | None, ending: Ending) -> str:
    if error:
        return error["type"]
    return ending.error.type if end_ns is None and ending.error else ""
