"""Promises, and what judges them needs of models, tasks and runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add a table, columns, and the indexes that runs are counted by."""
    op.add_column("runs", sa.Column("clear_number", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("extended_s", sa.Double))
    op.add_column("runs", sa.Column("kept", sa.BigInteger))
    for name in ("source", "schedule", "state"):
        op.add_column("tasks", sa.Column(name, sa.Text, nullable=False, server_default=""))
    op.add_column("tasks", sa.Column("next_due_ns", sa.BigInteger))
    op.add_column("models", sa.Column("last_success_ns", sa.BigInteger))
    _index("runs_judged", "runs", ["model_name", "outcome", "kept", "end_ns"], "outcome IS NOT NULL")
    has_failed = "outcome IN ('failed', 'timed_out', 'killed', 'lost')"
    _index("runs_failed", "runs", ["model_name", "outcome", "end_ns", "run_id"], has_failed)
    _index("runs_retried", "runs", ["retry_of"], "retry_of IS NOT NULL")
    _create_promises()
    # Until now only tasks of Airflow were noted.
    op.execute("UPDATE tasks SET source = 'airflow'")
    op.execute(
        "UPDATE models SET last_success_ns = "
        "(SELECT max(end_ns) FROM runs WHERE model_name = models.name AND outcome = 'success')"
    )


def _create_promises() -> None:
    names = ("model_name", "objective", "promise", "source", "env", "service", "version", "owner", "tier")
    places = ("resource", "dag_id", "task_id", "job", "dag_run_id")
    op.create_table(
        "promises",
        sa.Column("key", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in (*names, *places)),
        sa.Column("map_index", sa.BigInteger, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("due_ns", sa.BigInteger),
        sa.Column("deadline_ns", sa.BigInteger),
        sa.Column("at_risk_ns", sa.BigInteger),
        sa.Column("at_risk_token", sa.Text),
        sa.Column("breached_ns", sa.BigInteger),
        sa.Column("breached_token", sa.Text),
        sa.Column("told_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("missed", sa.BigInteger, nullable=False),
        sa.Column("margin_s", sa.Double),
        sa.Column("recovered_ns", sa.BigInteger),
        sa.Column("recovered_token", sa.Text),
        sa.Column("episode", sa.Text),
        sa.Column("model", sa.Text, nullable=False),
    )
    op.create_index("promises_of_episode", "promises", ["episode"], unique=True)
    op.create_index("promises_of_model", "promises", ["model_name", "objective", "breached_ns"])
    op.create_index("promises_of_resource", "promises", ["resource", "due_ns"])
    is_open = "breached_ns IS NOT NULL AND recovered_ns IS NULL"
    _index("promises_open", "promises", ["model_name", "objective"], is_open)


def _index(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
