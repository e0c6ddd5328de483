"""
The tables of the ledger, as SQLAlchemy Core sees them. How they come to be is in `migrations`.

Times are Unix times in nanoseconds. Ids of traces and spans are hex digits: they exceed a signed 64-bit integer. JSON
is kept as text: it is only ever read whole. A run is open as long as it has no outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table


@dataclass(frozen=True)
class Tables:
    """Models by name, tasks, runs, stages and measurements by run, and verdicts on runs that may not be known yet."""

    metadata: MetaData
    models: Table
    tasks: Table
    runs: Table
    stages: Table
    measurements: Table
    verdicts: Table


@cache
def tables() -> Tables:
    """Return the tables; SQLAlchemy is imported by the first call."""
    from sqlalchemy import MetaData

    metadata = MetaData()
    makers = (_models, _tasks, _runs, _stages, _measurements, _verdicts)
    return Tables(metadata, *(make(metadata) for make in makers))


def _models(metadata: MetaData) -> Table:
    from sqlalchemy import BigInteger, Column, Table, Text

    return Table(
        "models",
        metadata,
        Column("name", Text, primary_key=True),
        Column("definition", Text, nullable=False),
        Column("first_seen_ns", BigInteger, nullable=False),
        Column("last_seen_ns", BigInteger, nullable=False),
    )


def _tasks(metadata: MetaData) -> Table:
    from sqlalchemy import BigInteger, Column, Table, Text

    return Table(
        "tasks",
        metadata,
        Column("dag_id", Text, primary_key=True),
        Column("task_id", Text, primary_key=True),
        Column("definition", Text, nullable=False),
        Column("first_seen_ns", BigInteger, nullable=False),
        Column("last_seen_ns", BigInteger, nullable=False),
    )


def _runs(metadata: MetaData) -> Table:
    from sqlalchemy import BigInteger, Column, Double, Index, String, Table, Text, text

    # Narrow columns that many queries read come first: SQLite reads a row from its front.
    runs = Table(
        "runs",
        metadata,
        Column("run_id", Text, primary_key=True),
        Column("source", Text, nullable=False),
        Column("start_ns", BigInteger, nullable=False),
        Column("end_ns", BigInteger),
        Column("due_ns", BigInteger),
        Column("outcome", Text),
        Column("model_name", Text, nullable=False),
        Column("model_version", Text, nullable=False),
        Column("service", Text, nullable=False),
        Column("owner", Text, nullable=False),
        Column("tier", Text, nullable=False),
        Column("env", Text, nullable=False),
        Column("resource", Text, nullable=False),
        Column("dag_id", Text, nullable=False),
        Column("task_id", Text, nullable=False),
        Column("job", Text, nullable=False),
        Column("dag_run_id", Text, nullable=False),
        Column("map_index", BigInteger, nullable=False),
        Column("try_number", BigInteger, nullable=False),
        Column("retry_of", Text),
        Column("trace_id", String(32), nullable=False),
        Column("span_id", String(16), nullable=False),
        Column("host", Text, nullable=False),
        Column("pid", BigInteger, nullable=False),
        Column("token", Text),
        Column("closed_by", Text),
        Column("rows_read", BigInteger),
        Column("rows_written", BigInteger),
        Column("rows_rejected", BigInteger),
        Column("memory_peak", BigInteger),
        Column("memory_limit", BigInteger),
        Column("cpu_s", Double),
        Column("waiting_s", Double),
        Column("dropped", BigInteger),
        Column("exit_code", BigInteger),
        Column("signal", Text),
        Column("stage", Text),
        Column("error_type", Text),
        Column("error_message", Text),
        Column("paused_ns", BigInteger),
        Column("verdict_outcome", Text),
        Column("verdict_reason", Text),
        Column("verdict_ns", BigInteger),
        Column("model", Text, nullable=False),
        Column("context", Text),
        Column("state", Text),
    )
    is_open = text("outcome IS NULL")
    Index("runs_open", runs.c.source, sqlite_where=is_open, postgresql_where=is_open)
    # With its last columns a window over a model's runs never reads the table.
    Index("runs_of_model", runs.c.model_name, runs.c.start_ns, runs.c.end_ns, runs.c.outcome)
    Index("runs_of_dag_run", runs.c.dag_id, runs.c.dag_run_id, runs.c.task_id, runs.c.map_index)
    Index("runs_by_start", runs.c.start_ns)
    return runs


def _stages(metadata: MetaData) -> Table:
    from sqlalchemy import BigInteger, Column, String, Table, Text

    return Table(
        "stages",
        metadata,
        Column("run_id", Text, primary_key=True),
        Column("position", BigInteger, primary_key=True, autoincrement=False),
        Column("span_id", String(16), nullable=False),
        Column("parent_id", String(16), nullable=False),
        Column("name", Text, nullable=False),
        Column("start_ns", BigInteger, nullable=False),
        Column("end_ns", BigInteger, nullable=False),
        Column("error_type", Text, nullable=False),
        sqlite_with_rowid=False,
    )


def _measurements(metadata: MetaData) -> Table:
    from sqlalchemy import BigInteger, Column, Double, Table, Text

    return Table(
        "measurements",
        metadata,
        Column("run_id", Text, primary_key=True),
        Column("position", BigInteger, primary_key=True, autoincrement=False),
        Column("name", Text, nullable=False),
        Column("value", Double, nullable=False),
        Column("unit", Text, nullable=False),
        Column("time_ns", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )


def _verdicts(metadata: MetaData) -> Table:
    from sqlalchemy import BigInteger, Column, Table, Text

    return Table(
        "verdicts",
        metadata,
        Column("run_id", Text, primary_key=True),
        Column("verdict_outcome", Text, nullable=False),
        Column("verdict_reason", Text, nullable=False),
        Column("verdict_ns", BigInteger, nullable=False),
    )
