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


# SQLite uses an index of some rows only where a query says the very same.
HAS_ENDED = "outcome IS NOT NULL"
HAS_FAILED = "outcome IN ('failed', 'timed_out', 'killed', 'lost')"
IS_OPEN = "breached_ns IS NOT NULL AND recovered_ns IS NULL"


@dataclass(frozen=True)
class Tables:
    """
    Models by name, tasks, runs, stages and measurements by run, verdicts on runs that may not be known yet, promises.

    A cron job is a task without a DAG. A promise is a row from when it was first at risk or broken.
    """

    metadata: MetaData
    models: Table
    tasks: Table
    runs: Table
    stages: Table
    measurements: Table
    verdicts: Table
    promises: Table


@cache
def tables() -> Tables:
    """Return the tables; SQLAlchemy is imported by the first call."""
    from sqlalchemy import MetaData

    metadata = MetaData()
    makers = (_models, _tasks, _runs, _stages, _measurements, _verdicts, _promises)
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
        Column("last_success_ns", BigInteger),
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
        Column("source", Text, nullable=False, server_default=""),
        Column("schedule", Text, nullable=False, server_default=""),
        Column("next_due_ns", BigInteger),
        Column("state", Text, nullable=False, server_default=""),
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
        Column("clear_number", BigInteger, nullable=False, server_default="0"),
        Column("extended_s", Double),
        Column("kept", BigInteger),
    )
    is_open = text("outcome IS NULL")
    Index("runs_open", runs.c.source, sqlite_where=is_open, postgresql_where=is_open)
    # With its last columns a window over a model's runs never reads the table.
    Index("runs_of_model", runs.c.model_name, runs.c.start_ns, runs.c.end_ns, runs.c.outcome)
    Index("runs_of_dag_run", runs.c.dag_id, runs.c.dag_run_id, runs.c.task_id, runs.c.map_index)
    Index("runs_by_start", runs.c.start_ns)
    # In the order in which runs are counted: they are neither sorted nor read.
    has_ended = text(HAS_ENDED)
    of_count = (runs.c.model_name, runs.c.outcome, runs.c.kept, runs.c.end_ns)
    Index("runs_judged", *of_count, sqlite_where=has_ended, postgresql_where=has_ended)
    has_failed = text(HAS_FAILED)
    Index(
        "runs_failed",
        *(runs.c.model_name, runs.c.outcome, runs.c.end_ns, runs.c.run_id),
        sqlite_where=has_failed,
        postgresql_where=has_failed,
    )
    is_retry = text("retry_of IS NOT NULL")
    Index("runs_retried", runs.c.retry_of, sqlite_where=is_retry, postgresql_where=is_retry)
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


def _promises(metadata: MetaData) -> Table:
    from sqlalchemy import BigInteger, Column, Double, Index, Table, Text, text

    names = ("model_name", "objective", "promise", "source", "env", "service", "version", "owner", "tier")
    places = ("resource", "dag_id", "task_id", "job", "dag_run_id")
    promises = Table(
        "promises",
        metadata,
        Column("key", Text, primary_key=True),
        *(Column(name, Text, nullable=False) for name in (*names, *places)),
        Column("map_index", BigInteger, nullable=False),
        Column("run_id", Text, nullable=False),
        Column("due_ns", BigInteger),
        Column("deadline_ns", BigInteger),
        Column("at_risk_ns", BigInteger),
        Column("at_risk_token", Text),
        Column("breached_ns", BigInteger),
        Column("breached_token", Text),
        Column("told_by", Text, nullable=False),
        Column("reason", Text, nullable=False),
        Column("missed", BigInteger, nullable=False),
        Column("margin_s", Double),
        Column("recovered_ns", BigInteger),
        Column("recovered_token", Text),
        Column("episode", Text),
        Column("model", Text, nullable=False),
    )
    Index("promises_of_episode", promises.c.episode, unique=True)
    Index("promises_of_model", promises.c.model_name, promises.c.objective, promises.c.breached_ns)
    Index("promises_of_resource", promises.c.resource, promises.c.due_ns)
    is_open = text(IS_OPEN)
    Index(
        "promises_open",
        *(promises.c.model_name, promises.c.objective),
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    return promises
