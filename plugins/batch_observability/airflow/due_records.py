"""
What to ask Airflow's database to know what is due: its DAGs, and the task instances of recent DAG runs.

Plain tables and not Airflow's models, which take seconds to import; the columns are those of Airflow 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_PLACE = ("dag_id", "run_id", "task_id", "map_index")


@dataclass(frozen=True)
class Wanted:
    """
    Which task instances to read.

    Attributes:
        tasks: DAG id and task id; others of the same DAGs may come with them.
        ended_since: DAG runs that go on, or have ended since this moment,
        failed_since: or have failed since this one.
    """

    tasks: Collection[tuple[str, str]]
    ended_since: datetime
    failed_since: datetime

    def conditions(self, instance: Any, run: Any) -> Iterator[Any]:
        """Yield the terms of the WHERE clause over a table of task instances, joined with their DAG runs."""
        from sqlalchemy import and_, or_

        yield run.c.dag_id.in_(sorted({dag_id for dag_id, _ in self.tasks}))
        yield instance.c.task_id.in_(sorted({task_id for _, task_id in self.tasks}))
        yield or_(
            run.c.state.in_(("queued", "running")),
            run.c.end_date >= self.ended_since.astimezone(UTC),
            and_(run.c.state == "failed", run.c.end_date >= self.failed_since.astimezone(UTC)),
        )


def select_dags(dag_ids: Collection[str], now: datetime) -> Any:
    """
    Return the SELECT of DAGs.

    A row has `due` if the next DAG run should be there by now and is not, and `broken` if the file has an import error:
    Airflow's own mark of that stays when the file is deleted.
    """
    from sqlalchemy import and_, exists, or_, select

    dag, run, error = _dag(), _dag_run(), _table("import_error", "bundle_name", "filename")
    broken = exists().where(error.c.bundle_name == dag.c.bundle_name, error.c.filename == dag.c.relative_fileloc)
    # Any run of its date takes the place of a scheduled one (jobs/scheduler_job_runner.py:2485).
    taken = exists().where(
        run.c.dag_id == dag.c.dag_id,
        or_(
            and_(run.c.run_type == "scheduled", run.c.run_after == dag.c.next_dagrun_create_after),
            run.c.logical_date == dag.c.next_dagrun,
        ),
    )
    due = and_(dag.c.next_dagrun_create_after <= now.astimezone(UTC), ~taken)
    return select(dag, _flag(due, "due"), _flag(broken, "broken")).where(dag.c.dag_id.in_(dag_ids))


def select_instances(wanted: Wanted) -> Any:
    """Return the SELECT of task instances with what concerns their DAG runs."""
    from sqlalchemy import select

    run, instance = _dag_run(), _task_instance()
    of_run = (run.c[name] for name in ("run_type", "run_after", "queued_at", "clear_number"))
    columns = (instance.c[name] for name in (*_PLACE, "state", "try_number", "start_date", "next_method"))
    query = select(*columns, *of_run, run.c.state.label("run_state")).join(run, _of(instance, run))
    return query.where(*wanted.conditions(instance, run))


def select_first_pokes(wanted: Wanted) -> Any:
    """Return the SELECT of when tries began that were rescheduled: the instance says when they last went on."""
    from sqlalchemy import func, select

    run, instance = _dag_run(), _task_instance()
    poke = _table("task_reschedule", "ti_id", "start_date")
    keys = [instance.c[name] for name in _PLACE]
    query = select(*keys, func.min(poke.c.start_date).label("start_date")).join(run, _of(instance, run))
    query = query.join(poke, poke.c.ti_id == instance.c.id)
    return query.where(*wanted.conditions(instance, run)).group_by(*keys)


def select_first_tries(wanted: Wanted) -> Any:
    """Return the SELECT of when the first of the tries began that were retried; not of those before a clear."""
    from sqlalchemy import func, or_, select

    run, past = _dag_run(), _table("task_instance_history", *_PLACE, "start_date")
    keys = [past.c[name] for name in _PLACE]
    # To clear a DAG run is to queue it anew (models/taskinstance.py:460).
    since_clear = or_(run.c.clear_number == 0, past.c.start_date >= run.c.queued_at)
    query = select(*keys, func.min(past.c.start_date).label("start_date")).join(run, _of(past, run))
    return query.where(*wanted.conditions(past, run), since_clear).group_by(*keys)


def _of(instance: Any, run: Any) -> Any:
    from sqlalchemy import and_

    return and_(instance.c.dag_id == run.c.dag_id, instance.c.run_id == run.c.run_id)


def _flag(condition: Any, name: str) -> Any:
    from sqlalchemy import case

    return case((condition, 1), else_=0).label(name)


def _dag() -> Any:
    flags = ("is_paused", "is_stale", "exceeds_max_non_backfill")
    texts = ("dag_id", "bundle_name", "relative_fileloc", "timetable_summary", "allowed_run_types")
    return _table("dag", *texts, *flags, "next_dagrun", "next_dagrun_create_after")


def _dag_run() -> Any:
    dates = ("run_after", "queued_at", "logical_date", "end_date")
    return _table("dag_run", "dag_id", "run_id", "run_type", "state", "clear_number", *dates)


def _task_instance() -> Any:
    return _table("task_instance", *_PLACE, "id", "state", "try_number", "start_date", "next_method")


def _table(name: str, *columns: str) -> Any:
    from sqlalchemy import Boolean, DateTime, Integer, String, Uuid, column, table

    kinds: dict[str, Any] = {
        **dict.fromkeys(("map_index", "try_number", "clear_number"), Integer),
        **dict.fromkeys(("is_paused", "is_stale", "exceeds_max_non_backfill"), Boolean),
        **dict.fromkeys(("start_date", "end_date", "run_after", "queued_at", "logical_date"), DateTime(timezone=True)),
        **dict.fromkeys(("next_dagrun", "next_dagrun_create_after"), DateTime(timezone=True)),
        **dict.fromkeys(("id", "ti_id"), Uuid),
    }
    return table(name, *(column(one, kinds.get(one, String)) for one in columns))
