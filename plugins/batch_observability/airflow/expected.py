"""
What is due of every batch model that Airflow runs, and why it may not have begun: from Airflow's own records.

A run that never starts has no process that could say so. Airflow knows of it: a DAG run that waits, or a DAG whose next
run should be there and is not.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from batch_observability.airflow.attempt import SOURCE
from batch_observability.airflow.due_records import Wanted
from batch_observability.airflow.records import Records, Row
from batch_observability.airflow.registry import Declared
from batch_observability.ledger import records as ledger
from batch_observability.objective import FinishBy, ModelError, parse_duration
from batch_observability.sla.promises import FROM_CLOCK, due_ns, is_backfill, slot_of, unix_ns
from batch_observability.sla.watch import Expected

_SCHEDULED = "scheduled"
_SETTLED = frozenset({"success", "skipped", "removed"})
# States in which a task instance has the start of an earlier try, or one that was made up for it.
_NOT_BEGUN = frozenset({None, "scheduled", "queued", "upstream_failed"})
_WHY = {
    None: "it waits for its upstream tasks",
    "scheduled": "it waits for a slot of its pool",
    "queued": "it waits for a worker",
    "upstream_failed": "its upstream failed",
    "running": "it is running",
    "restarting": "it was cleared while it ran",
    "deferred": "it is deferred",
    "up_for_retry": "it waits to be retried",
    "up_for_reschedule": "it waits to look again",
    "failed": "it failed",
}
PAUSED, IMPORT_ERROR = "paused", "import error"
_WHY_DAG = {PAUSED: "its DAG is paused", IMPORT_ERROR: "its DAG has an import error"}

Models = Mapping[tuple[str, str], Declared]
Tasks = Mapping[tuple[str, str], dict[str, Any]]


def expected(
    records: Records, models: Models, env: str, now: datetime, since: datetime
) -> tuple[list[Expected], list[ledger.Declared]] | None:
    """
    Return what is due of batch models, and what they are.

    Args:
        records: of Airflow.
        models: by DAG id and task id.
        env: deployment environment.
        now: what is due later is not expected yet.
        since: DAG runs that ended before are over, unless they failed and a promise of theirs goes on.

    Returns:
        None if Airflow's database did not answer.
    """
    # What no clock judges is judged by the run itself.
    timed = {task: one for task, one in models.items() if not one.model["objectives"].keys().isdisjoint(FROM_CLOCK)}
    rows = records.dags({dag_id for dag_id, _ in models}, now)
    wanted = Wanted(timed, since, since - _longest(timed))
    instances = records.instances(wanted) if timed else []
    if rows is None or instances is None:
        return None
    # A DAG that is in no file any more is due no more; one whose file cannot be imported is.
    dags = {row["dag_id"]: row for row in rows if row["broken"] or not row["is_stale"]}
    tasks = {task: _of_task(task, one, env) for task, one in timed.items() if task[0] in dags}
    found = [*_slots(tasks, dags), *_instances(instances, tasks, dags)]
    return found, [_declared(task, one, dags[task[0]]) for task, one in models.items() if task[0] in dags]


def _slots(tasks: Tasks, dags: Mapping[str, Row]) -> Iterator[Expected]:
    """Yield the runs that are due without a DAG run."""
    for (dag_id, _), of_task in tasks.items():
        dag = dags[dag_id]
        if dag["due"] and _may_be_scheduled(dag):
            due = unix_ns(dag["next_dagrun_create_after"])
            yield Expected(**of_task, slot=slot_of(_SCHEDULED, due, ""), due_ns=due, why=_why_no_run(dag))


def _instances(rows: Iterable[Row], tasks: Tasks, dags: Mapping[str, Row]) -> Iterator[Expected]:
    """Yield what is due of the task instances that there are."""
    states = {dag_id: _state(dag) for dag_id, dag in dags.items()}
    runs: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        of_task, place = tasks.get((row["dag_id"], row["task_id"])), (row["dag_id"], row["run_id"])
        if of_task is None:
            continue
        if place not in runs:
            runs[place] = _of_run(row)
        started, clear_number = _started(row), row["clear_number"]
        if clear_number and row["start_date"] == started is not None and started < row["queued_at"]:
            # Another task of its DAG run was cleared, not this one.
            clear_number -= 1
        yield Expected(
            **of_task,
            **runs[place],
            map_index=row["map_index"],
            clear_number=clear_number,
            started_ns=None if started is None else unix_ns(started),
            settled=row["state"] in _SETTLED,
            why=why(row["state"], row["run_state"], states[row["dag_id"]]),
        )


def _of_task(task: tuple[str, str], one: Declared, env: str) -> dict[str, Any]:
    dag_id, task_id = task
    return {
        "model": one.model,
        "source": SOURCE,
        "env": env,
        "resource": f"{dag_id}.{task_id}",
        "dag_id": dag_id,
        "task_id": task_id,
        "since_ns": one.since_ns,
    }


def _of_run(row: Row) -> dict[str, Any]:
    queued_ns = unix_ns(row["queued_at"]) if row["queued_at"] else None
    due = due_ns(row["run_type"], unix_ns(row["run_after"]), queued_ns)
    return {
        "dag_run_id": row["run_id"],
        "slot": slot_of(row["run_type"], due, row["run_id"]),
        "due_ns": due,
        "backfill": is_backfill(row["run_type"]),
    }


def _started(row: Row) -> datetime | None:
    """Return when the first try began since the last clear; None if none has."""
    # Airflow gives a start to what it skips or fails without a process (models/taskinstance.py, set_state). What was
    # deferred and waits for a worker again has begun.
    has_begun = row["try_number"] and (row["state"] not in _NOT_BEGUN or row["next_method"] is not None)
    begun = row["start_date"] if has_begun else None
    starts = [start for start in (begun, row["earlier_start"]) if start is not None]
    return min(starts, default=None)


def why(state: str | None, dag_run_state: str, dag_state: str = "") -> str:
    """Say in a few words why a task instance has not succeeded; "" if it has."""
    if dag_state and state in (None, "scheduled", "up_for_retry", "up_for_reschedule"):
        return _WHY_DAG[dag_state]
    if dag_run_state == "queued" and state is None:
        return "the DAG run waits in the queue"
    if state in _SETTLED:
        return ""
    return _WHY.get(state) or f"it is {state}".replace("_", " ")


def _why_no_run(dag: Row) -> str:
    if state := _state(dag):
        return _WHY_DAG[state]
    if dag["exceeds_max_non_backfill"]:
        return "as many runs of its DAG go on as may (max_active_runs)"
    return "the scheduler has not made its DAG run"


def _state(dag: Row) -> str:
    """Return why a DAG will not run, "" if it will."""
    if dag["broken"]:
        return IMPORT_ERROR
    return PAUSED if dag["is_paused"] else ""


def _may_be_scheduled(dag: Row) -> bool:
    # PostgreSQL gives a list, SQLite its text.
    allowed = dag["allowed_run_types"]
    return allowed in (None, "null") or _SCHEDULED in allowed


def _declared(task: tuple[str, str], one: Declared, dag: Row) -> ledger.Declared:
    upcoming = dag["next_dagrun_create_after"]
    return ledger.Declared(
        dag_id=task[0],
        task_id=task[1],
        source=SOURCE,
        model=one.model,
        since_ns=one.since_ns,
        schedule=dag["timetable_summary"] or "",
        next_due_ns=unix_ns(upcoming) if upcoming else None,
        state=_state(dag),
    )


def _longest(models: Models) -> timedelta:
    """Return how long after a run has failed a promise of it may still be broken."""
    texts = {(name, text) for one in models.values() for name, text in one.model["objectives"].items()}
    return max((_reach(name, text) for name, text in texts), default=timedelta(0))


@functools.cache
def _reach(objective: str, promise: str) -> timedelta:
    try:
        if objective == "finish_by":
            # The date counts in its own zone, which may be a day ahead.
            return timedelta(days=FinishBy.parse(promise).days + 2)
        return parse_duration(promise) if objective in FROM_CLOCK else timedelta(0)
    except ModelError:
        return timedelta(0)
