"""
The newest runs of a model that have ended: how long they took, how late they began, how many rows they had.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_observability.ledger import columns
from batch_observability.ledger.tables import HAS_ENDED, tables

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """
    A run that has ended. Times are Unix times in nanoseconds.

    Attributes:
        first_start_ns: when its first try began, after the last clear; `start_ns` of a cron job.
        due_ns: when it was due, None if that is not known.
        rows_read, rows_written, rows_rejected: None if it never said.
    """

    outcome: str
    start_ns: int
    first_start_ns: int
    end_ns: int
    due_ns: int | None = None
    rows_read: int | None = None
    rows_written: int | None = None
    rows_rejected: int | None = None


def past_runs(connection: Connection, model: str, since_ns: int, limit: int) -> list[PastRun]:
    """Return the runs of a model that began since then and have ended, newest first, so many at most."""
    from sqlalchemy import select, text

    runs = tables().runs
    shown = ("outcome", "start_ns", "end_ns", "due_ns", "rows_read", "rows_written", "rows_rejected")
    names = ("resource", "dag_run_id", "map_index", "clear_number", "run_id")
    found = select(*(runs.c[name] for name in (*shown, *names))).where(
        text(HAS_ENDED), runs.c.model_name == columns.text(model), runs.c.start_ns >= since_ns
    )
    rows = connection.execute(found.order_by(runs.c.start_ns.desc()).limit(limit)).all()
    # All tries of a task have these in common; a run of a cron job stands for itself.
    attempts = [(r.resource, r.dag_run_id, r.map_index, r.clear_number) if r.dag_run_id else r.run_id for r in rows]
    # The oldest come last.
    first = dict(zip(attempts, (row.start_ns for row in rows), strict=True))
    return [
        PastRun(**{name: getattr(row, name) for name in shown}, first_start_ns=first[attempt])
        for row, attempt in zip(rows, attempts, strict=True)
    ]
