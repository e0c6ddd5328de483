"""What is asked of the ledger, within a transaction of the caller."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from batch_observability.ledger.records import Model, OpenRun, Run, Verdict
from batch_observability.ledger.tables import IS_OPEN, tables

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

T = TypeVar("T")

# SQLite takes 32,766 variables in a statement; many fewer are as quick.
AT_ONCE = 500
# A task that has not run for so long is not expected to.
_OBSERVED_WITHIN = timedelta(days=400)


def open_runs(connection: Connection, source: str) -> list[OpenRun]:
    """Return the open runs of a source, oldest first."""
    runs = tables().runs
    found = connection.execute(
        runs.select().where(runs.c.outcome.is_(None), runs.c.source == source).order_by(runs.c.start_ns)
    )
    return [
        OpenRun(
            run=_run(row),
            context=json.loads(row.context) if row.context else {},
            paused_ns=row.paused_ns,
            state=row.state or "",
        )
        for row in found
    ]


def outcomes(connection: Connection, run_ids: Collection[str]) -> dict[str, str | None]:
    """Return the outcome of each run that is known, None while it is open."""
    from sqlalchemy import select

    runs = tables().runs
    known: dict[str, str | None] = {}
    for some in batches(run_ids, AT_ONCE):
        statement = select(runs.c.run_id, runs.c.outcome).where(runs.c.run_id.in_(some))
        known |= {row.run_id: row.outcome for row in connection.execute(statement)}
    return known


def verdict(connection: Connection, run_id: str) -> Verdict | None:
    """Return what somebody who knows said of the run's end."""
    # Of the run, or of its DAG run; or of the run before it was known.
    said = [
        Verdict(outcome=row.verdict_outcome, reason=row.verdict_reason, time_ns=row.verdict_ns, run_id=run_id)
        for table in (tables().runs, tables().verdicts)
        for row in connection.execute(table.select().where(table.c.run_id == run_id))
        if row.verdict_outcome is not None
    ]
    return min(said, key=lambda one: one.time_ns, default=None)


def paused_state(connection: Connection, run_id: str) -> str | None:
    """Return the observation of an open run that has paused."""
    from sqlalchemy import select

    runs = tables().runs
    state: str | None = connection.execute(select(runs.c.state).where(runs.c.run_id == run_id)).scalar()
    return state


def model_of(connection: Connection, dag_id: str, task_id: str) -> Model | None:
    """Return the model of the newest run of a task."""
    from sqlalchemy import select

    tasks = tables().tasks
    of_task = (tasks.c.dag_id == dag_id) & (tasks.c.task_id == task_id)
    definition = connection.execute(select(tasks.c.definition).where(of_task)).scalar()
    return json.loads(definition) if definition else None


def known_tasks(connection: Connection, source: str) -> dict[tuple[str, str], tuple[Model, int]]:
    """Return newest model of each task of a source, and since when it is known: that ran or was declared lately."""
    from sqlalchemy import select

    tasks = tables().tasks
    since_ns = time.time_ns() - _nanoseconds(_OBSERVED_WITHIN)
    found = select(tasks.c.dag_id, tasks.c.task_id, tasks.c.definition, tasks.c.first_seen_ns).where(
        tasks.c.source == source, tasks.c.last_seen_ns >= since_ns
    )
    return {
        (row.dag_id, row.task_id): (json.loads(row.definition), row.first_seen_ns) for row in connection.execute(found)
    }


def summary(connection: Connection) -> dict[str, Any]:
    """Return the number of runs, of open ones and by outcome, start of the oldest and the newest; and of breaches."""
    from sqlalchemy import func, select, text

    runs, promises = tables().runs, tables().promises
    counted = select(runs.c.outcome, func.count().label("number")).group_by(runs.c.outcome)
    counts = {row.outcome: row.number for row in connection.execute(counted)}
    oldest, newest = func.min(runs.c.start_ns), func.max(runs.c.start_ns)
    return {
        "runs": sum(counts.values()),
        "open": counts.pop(None, 0),
        "oldest_ns": connection.execute(select(oldest)).scalar(),
        "newest_ns": connection.execute(select(newest)).scalar(),
        "outcomes": dict(sorted(counts.items())),
        "breaches": connection.execute(select(func.count(promises.c.breached_ns))).scalar(),
        "open_breaches": connection.execute(select(func.count()).select_from(promises).where(text(IS_OPEN))).scalar(),
    }


def prune(connection: Connection, keep: timedelta) -> int:
    """Delete some of the oldest runs that ended longer ago than that; return how many, 0 when there are none left."""
    from sqlalchemy import select

    runs, before_ns = tables().runs, time.time_ns() - _nanoseconds(keep)
    old = select(runs.c.run_id).where(
        runs.c.start_ns < before_ns, runs.c.end_ns < before_ns, runs.c.outcome.is_not(None)
    )
    ids = connection.execute(old.order_by(runs.c.start_ns).limit(AT_ONCE)).scalars().all()
    verdicts = tables().verdicts
    connection.execute(verdicts.delete().where(verdicts.c.verdict_ns < before_ns))
    if ids:
        for table in (tables().stages, tables().measurements, runs):
            connection.execute(table.delete().where(table.c.run_id.in_(ids)))
    return len(ids)


def prune_promises(connection: Connection, keep: timedelta) -> int:
    """Delete some of what was broken and recovered, or only at risk, longer ago than that; return how many."""
    from sqlalchemy import select

    promises, before_ns = tables().promises, time.time_ns() - _nanoseconds(keep)
    was_only_at_risk = promises.c.breached_ns.is_(None) & (promises.c.at_risk_ns < before_ns)
    old = select(promises.c.key).where((promises.c.recovered_ns < before_ns) | was_only_at_risk)
    keys = connection.execute(old.limit(AT_ONCE)).scalars().all()
    connection.execute(promises.delete().where(promises.c.key.in_(keys)))
    return len(keys)


def _run(row: Row[Any]) -> Run:
    values = {f.name: getattr(row, f.name) for f in fields(Run)}
    ids = {"trace_id": int(row.trace_id, 16), "span_id": int(row.span_id, 16)}
    return Run(**{**values, **ids, "model": json.loads(row.model)})


def _nanoseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000


def batches(items: Collection[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items, so many at once."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
