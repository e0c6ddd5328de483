"""What is asked of the ledger of cron jobs: when they are due and what has begun, within a caller's transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_observability.ledger.plain import Model
from batch_observability.ledger.tables import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """A job that was declared, with its schedule ("" if it has none) and when it is due next, as was told last."""

    name: str
    model: Model
    since_ns: int
    schedule: str
    next_due_ns: int | None


@dataclass(frozen=True, kw_only=True)
class CronRun:
    """A run of a job; `outcome` is None while it is open."""

    job: str
    start_ns: int
    due_ns: int | None
    outcome: str | None


def jobs(connection: Connection, source: str) -> list[Scheduled]:
    """Return the jobs of a source."""
    tasks = tables().tasks
    found = connection.execute(tasks.select().where(tasks.c.source == source, tasks.c.dag_id == ""))
    return [
        Scheduled(
            name=row.task_id,
            model=json.loads(row.definition),
            since_ns=row.first_seen_ns,
            schedule=row.schedule,
            next_due_ns=row.next_due_ns,
        )
        for row in found
    ]


def runs(connection: Connection, source: str, since_ns: int) -> list[CronRun]:
    """Return the runs of a source that began since then, oldest first."""
    from sqlalchemy import select

    table = tables().runs
    columns = (table.c.job, table.c.start_ns, table.c.due_ns, table.c.outcome)
    found = select(*columns).where(table.c.source == source, table.c.start_ns >= since_ns).order_by(table.c.start_ns)
    return [
        CronRun(job=row.job, start_ns=row.start_ns, due_ns=row.due_ns, outcome=row.outcome)
        for row in connection.execute(found)
    ]
