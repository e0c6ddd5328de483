"""
One observed try of a task, in the process that runs it: begin, end, and the pause of a deferred one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from batch_observability import config, schema
from batch_observability.airflow import compat, registry
from batch_observability.airflow.attempt import Attempt, as_text
from batch_observability.guard import guarded
from batch_observability.ids import derive_span_id, format_traceparent
from batch_observability.model import BatchModel
from batch_observability.observing import Observed
from batch_observability.run import Run, RunContext
from batch_observability.schema import Outcome
from batch_observability.sla.promises import due_ns, is_backfill, slot_of, unix_ns


@dataclass(frozen=True)
class _Open:
    """
    The run that is open in this process.

    Attributes:
        resumes_here: `dag.test()` goes on with a deferred task at once, in this process.
    """

    task_instance: Any
    observed: Observed
    resumes_here: bool


_NEEDED = (
    "batch_observability.airflow.links",
    "batch_observability.airflow.task_logs",
    "batch_observability.catalog.lookup",
    "multiprocessing.context",
    "multiprocessing.reduction",
)
_open: _Open | None = None
_last: Run | None = None


def last_run() -> Run | None:
    """Return the run that is open in this process, or was."""
    return _last


def open_task_instance() -> Any:
    """Return the try whose run is open in this process; None if there is none."""
    return _open.task_instance if _open and _open.observed.is_open else None


def load() -> None:
    """Load all that a run needs, in a process whose forks run tasks, as LocalExecutor's are: then none has to."""
    for name in _NEEDED:
        import_module(name)


def begin(task_instance: Any, model: BatchModel) -> None:
    """Begin to observe a try; a second call for the same try does nothing."""
    global _open, _last
    opened = open_task_instance()
    if opened is not None and opened.id == task_instance.id:
        return
    settings = compat.settings()
    tracing = compat.airflow_tracing()
    context = _context(task_instance, model, settings, tracing=tracing)
    ends_with_task = settings.wait_at_end == "always" or (settings.wait_at_end == "auto" and compat.is_kubernetes_pod())
    observed = Observed(context, settings, compat.redact, ends_with_process=ends_with_task, airflow_tracing=tracing)
    _open, _last = _Open(task_instance, observed, compat.in_process(task_instance)), observed.run
    run = observed.run
    _observe_logs(run, settings)

    @guarded(None)
    def asked_to_end() -> None:
        run.tell("asked_to_end", killed_after_s=compat.KILLED_AFTER_S)

    compat.on_asked_to_end(task_instance.task, asked_to_end)
    compat.announce_to_consumers(task_instance, format_traceparent(context.trace_id, context.span_id))


@guarded(None)
def _observe_logs(run: Run, settings: config.Settings) -> None:
    # All of Airflow's processes load this module, and most run no batch model.
    from batch_observability.airflow import task_logs

    task_logs.observe_logs(run, settings)


@guarded(None)
def _end_logs() -> None:
    from batch_observability.airflow import task_logs

    task_logs.end_of_run()


def end(task_instance: Any, outcome: Outcome, error: BaseException | str | None = None) -> None:
    """End the open run of a try, if it is this one's."""
    opened = open_task_instance()
    if _open is None or opened is None or opened.id != task_instance.id:
        return
    observed = _open.observed
    _close("end", outcome=outcome.value, error=observed.run.describe(error), wait=observed.must_wait)


def pause() -> None:
    """Pause the open run: its task is deferred or rescheduled and will go on in another process."""
    if _open is not None and open_task_instance() is not None:
        _close("pause", acknowledged=_open.resumes_here)


def _close(kind: str, **values: Any) -> None:
    global _open  # noqa: PLW0603  (a process runs one task at a time)
    if _open is None:
        return
    _end_logs()
    _open.observed.close(kind, **values)
    _open = None


def _context(ti: Any, model: BatchModel, settings: config.Settings, *, tracing: bool) -> RunContext:
    place = compat.trace_parent(ti)
    parent_id, orphan_parent_id = _parents(ti, place.span_id, settings, tracing=tracing)
    attempt = Attempt(
        str(ti.id), ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index, ti.try_number
    )
    resumed = compat.is_resumed(ti)
    dag_run = compat.dag_run(ti)
    # If the DAG run was cleared, the try before this one may be in another trace.
    followed = ti.try_number > 1 and not (dag_run and dag_run.clear_number)
    links = [(producer.trace_id, producer.span_id) for producer in compat.announced_by_producers(ti)]
    return RunContext(
        **attempt.of_run(place.trace_id),
        model=as_text(model),
        parent_id=parent_id,
        orphan_parent_id=orphan_parent_id,
        linked_spans=(*links, *([(place.trace_id, attempt.before(place.trace_id))] if followed else ())),
        start_ns=int(ti.start_date.timestamp() * 1e9) if resumed and ti.start_date else time.time_ns(),
        **(_due(ti, dag_run, settings) if dag_run else {}),
        resumed=resumed,
        env=config.environment(),
    )


def _due(ti: Any, dag_run: compat.DagRun, settings: config.Settings) -> dict[str, Any]:
    due = due_ns(dag_run.run_type, unix_ns(dag_run.run_after))
    return {
        "due_ns": due,
        "slot": slot_of(dag_run.run_type, due, ti.run_id),
        "clear_number": dag_run.clear_number,
        "backfill": is_backfill(dag_run.run_type),
        "declared_ns": registry.declared_since(settings.state_path, ti.dag_id, ti.task_id),
        "retries_left": dag_run.retries_left,
    }


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
