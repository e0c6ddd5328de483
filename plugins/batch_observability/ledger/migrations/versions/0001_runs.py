"""Models, tasks, runs with their stages and measurements, verdicts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "models",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("first_seen_ns", sa.BigInteger, nullable=False),
        sa.Column("last_seen_ns", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "tasks",
        sa.Column("dag_id", sa.Text, primary_key=True),
        sa.Column("task_id", sa.Text, primary_key=True),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("first_seen_ns", sa.BigInteger, nullable=False),
        sa.Column("last_seen_ns", sa.BigInteger, nullable=False),
    )
    _create_runs()
    op.create_table(
        "stages",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("span_id", sa.String(16), nullable=False),
        sa.Column("parent_id", sa.String(16), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("start_ns", sa.BigInteger, nullable=False),
        sa.Column("end_ns", sa.BigInteger, nullable=False),
        sa.Column("error_type", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "measurements",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("time_ns", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "verdicts",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("verdict_outcome", sa.Text, nullable=False),
        sa.Column("verdict_reason", sa.Text, nullable=False),
        sa.Column("verdict_ns", sa.BigInteger, nullable=False),
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("start_ns", sa.BigInteger, nullable=False),
        sa.Column("end_ns", sa.BigInteger),
        sa.Column("due_ns", sa.BigInteger),
        sa.Column("outcome", sa.Text),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("model_name", "model_version", "service", "owner", "tier", "env", "resource")
        ),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("dag_id", "task_id", "job", "dag_run_id")),
        sa.Column("map_index", sa.BigInteger, nullable=False),
        sa.Column("try_number", sa.BigInteger, nullable=False),
        sa.Column("retry_of", sa.Text),
        sa.Column("trace_id", sa.String(32), nullable=False),
        sa.Column("span_id", sa.String(16), nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("token", sa.Text),
        sa.Column("closed_by", sa.Text),
        *(sa.Column(name, sa.BigInteger) for name in ("rows_read", "rows_written", "rows_rejected")),
        sa.Column("memory_peak", sa.BigInteger),
        sa.Column("memory_limit", sa.BigInteger),
        sa.Column("cpu_s", sa.Double),
        sa.Column("waiting_s", sa.Double),
        sa.Column("dropped", sa.BigInteger),
        sa.Column("exit_code", sa.BigInteger),
        *(sa.Column(name, sa.Text) for name in ("signal", "stage", "error_type", "error_message")),
        sa.Column("paused_ns", sa.BigInteger),
        sa.Column("verdict_outcome", sa.Text),
        sa.Column("verdict_reason", sa.Text),
        sa.Column("verdict_ns", sa.BigInteger),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("context", sa.Text),
        sa.Column("state", sa.Text),
    )
    is_open = sa.text("outcome IS NULL")
    op.create_index("runs_open", "runs", ["source"], sqlite_where=is_open, postgresql_where=is_open)
    op.create_index("runs_of_model", "runs", ["model_name", "start_ns", "end_ns", "outcome"])
    op.create_index("runs_of_dag_run", "runs", ["dag_id", "dag_run_id", "task_id", "map_index"])
    op.create_index("runs_by_start", "runs", ["start_ns"])
