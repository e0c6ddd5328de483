"""
One observed try of a task, in the process that runs it: begin, end, and the pause of a deferred one.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from batch_observability import config, schema
from batch_observability.airflow import compat
from batch_observability.airflow.correlation import correlate_logs
from batch_observability.ids import derive_span_id, format_traceparent
from batch_observability.model import BatchModel
from batch_observability.run import Run, RunContext, set_current_run
from batch_observability.schema import Outcome
from batch_observability.sidecar.spawn import Observer, start_observer
from batch_observability.usage import process_usage

_SOURCE = "airflow"
# How long the end may wait for a socket that is full; the end's budget is 20 ms.
_DRAIN_S = 0.01


@dataclass(frozen=True)
class _Open:
    """
    The run that is open in this process.

    Attributes:
        ends_with_task: the sidecar's container ends with this process: it must have sent or kept all before.
        resumes_here: `dag.test()` goes on with a deferred task at once, in this process.
        pid: of this process; a forked child of user code has no open run.
    """

    task_instance: Any
    run: Run
    observer: Observer
    settings: config.Settings
    ends_with_task: bool
    resumes_here: bool
    pid: int


_open: _Open | None = None
_last: Run | None = None


def last_run() -> Run | None:
    """Return the run that is open in this process, or was."""
    return _last


def open_task_instance() -> Any:
    """Return the try whose run is open in this process; None if there is none."""
    return _open.task_instance if _open and _open.pid == os.getpid() else None


def begin(task_instance: Any, model: BatchModel) -> None:
    """Begin to observe a try; a second call for the same try does nothing."""
    global _open, _last  # noqa: PLW0603  (a process runs one task at a time)
    opened = open_task_instance()
    if opened is not None and opened.id == task_instance.id:
        return
    settings = compat.settings()
    tracing = compat.airflow_tracing()
    context = _context(task_instance, model, settings, tracing=tracing)
    observer = start_observer(context, settings.as_frame(), airflow_tracing=tracing)
    run = Run(context, observer.channel, compat.redact)
    ends_with_task = settings.wait_at_end == "always" or (settings.wait_at_end == "auto" and compat.is_kubernetes_pod())
    resumes_here = compat.in_process(task_instance)
    _open = _Open(task_instance, run, observer, settings, ends_with_task, resumes_here, os.getpid())
    _last = run
    set_current_run(run)
    correlate_logs(run)
    compat.announce_to_consumers(task_instance, format_traceparent(context.trace_id, context.span_id))


def end(task_instance: Any, outcome: Outcome, error: BaseException | str | None = None) -> None:
    """End the open run of a try, if it is this one's."""
    opened = open_task_instance()
    if _open is None or opened is None or opened.id != task_instance.id:
        return
    _close("end", outcome=outcome.value, error=_open.run.describe(error), wait=_must_wait(_open))


def pause() -> None:
    """Pause the open run: its task is deferred or rescheduled and will go on in another process."""
    if open_task_instance() is not None:
        _close("pause")


def _must_wait(opened: _Open) -> bool:
    return opened.ends_with_task or not opened.observer.separate


def _close(kind: str, **values: Any) -> None:
    global _open
    opened, _open = _open, None
    if opened is None:
        return
    channel = opened.observer.channel
    usage = process_usage()
    channel.send({"t": kind, "ts": time.time_ns(), "usage": usage, "dropped": channel.dropped, **values})
    channel.drain(_DRAIN_S)
    if _must_wait(opened) or (opened.resumes_here and kind == "pause"):
        channel.wait_acknowledged(opened.settings.wait_timeout)
    channel.close()
    set_current_run(None)


def _context(ti: Any, model: BatchModel, settings: config.Settings, *, tracing: bool) -> RunContext:
    place = compat.trace_parent(ti)
    parent_id, orphan_parent_id = _parents(ti, place.span_id, settings, tracing=tracing)
    map_index = -1 if ti.map_index is None else ti.map_index
    attempt = (ti.dag_id, ti.run_id, ti.task_id, map_index)
    resumed = compat.is_resumed(ti)
    due = compat.run_after(ti) if ti.try_number == 1 and not resumed else None
    followed = ti.try_number > 1 and not compat.was_cleared(ti)
    before = derive_span_id(schema.RUN, place.trace_id, *attempt, ti.try_number - 1)
    links = [(producer.trace_id, producer.span_id) for producer in compat.announced_by_producers(ti)]
    return RunContext(
        run_id=str(ti.id),
        source=_SOURCE,
        resource=f"{ti.dag_id}.{ti.task_id}",
        model={
            "name": model.name,
            "version": model.version,
            "service": model.service,
            "owner": model.owner,
            "tier": str(model.tier),
            "runbook": model.runbook,
            "objectives": model.objectives(),
        },
        tags={schema.TAG_DAG_ID: ti.dag_id, schema.TAG_TASK_ID: ti.task_id},
        trace_id=place.trace_id,
        span_id=derive_span_id(schema.RUN, place.trace_id, *attempt, ti.try_number),
        parent_id=parent_id,
        orphan_parent_id=orphan_parent_id,
        linked_spans=(*links, *([(place.trace_id, before)] if followed else ())),
        attributes={
            schema.DAG_ID: ti.dag_id,
            schema.TASK_ID: ti.task_id,
            schema.DAG_RUN_ID: ti.run_id,
            schema.TRY_NUMBER: ti.try_number,
            schema.MAP_INDEX: map_index,
        },
        start_ns=int(ti.start_date.timestamp() * 1e9) if resumed and ti.start_date else time.time_ns(),
        due_ns=int(due.timestamp() * 1e9) if due else None,
        resumed=resumed,
        env=config.environment(),
    )


def _parents(ti: Any, carried: int, settings: config.Settings, *, tracing: bool) -> tuple[int | None, int | None]:
    """
    Return the span that the run hangs under, and the one if its process is killed.

    With Airflow's own tracing that is `worker.<task>`, which is lost with the process, and then `task_run.<task>`,
    which the API server sends. Without it, the task span that the scheduler's helper will send.
    """
    if not tracing:
        task_span = derive_span_id(schema.TASK, ti.id) if settings.dag_run_spans else None
        return task_span, task_span
    if not compat.is_sampled(ti):
        return None, None
    return compat.recording_worker_span() or carried or None, carried or None
