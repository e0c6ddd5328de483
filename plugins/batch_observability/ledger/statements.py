"""
The statements that write to the ledger. Each is made once in a process: to put one together takes SQLAlchemy several
times as long as the database needs to run it.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from batch_observability.ledger.promise_statements import PromiseStatements
from batch_observability.ledger.tables import tables

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Insert, Select, Table, Update

    from batch_observability.ledger.dialect import PostgreSQL, SQLite


class Statements:
    """The statements in a dialect; names of parameters that are not of columns begin with `of_` or `new_`."""

    def __init__(self, dialect: SQLite | PostgreSQL) -> None:
        self._dialect = dialect
        self.promises = PromiseStatements(dialect)

    @cached_property
    def start(self) -> Insert:
        """Insert a run, unless it is known."""
        insert: Insert = self._dialect.insert(tables().runs).on_conflict_do_nothing(index_elements=["run_id"])
        return insert

    @cached_property
    def pause(self) -> Insert:
        """Insert a run that has paused; of an open one, write where it is."""
        return self._unless_ended(("state", "paused_ns"))

    @cached_property
    def finish(self) -> Insert:
        """Insert a run that has ended; close an open one. A run that has ended stays as it is."""
        names = {column.name for column in tables().runs.c}
        kept = {"run_id", "retry_of", "verdict_outcome", "verdict_reason", "verdict_ns"}
        # What an ending says nothing of, context and state, is NULL in the row to be inserted: they are emptied.
        return self._unless_ended(names - kept, greatest=("extended_s",))

    def _unless_ended(self, names: Collection[str], greatest: Collection[str] = ()) -> Insert:
        runs = tables().runs
        insert = self._dialect.insert(runs)
        news = {name: insert.excluded[name] for name in sorted(names)}
        news |= {name: _greatest(runs.c[name], insert.excluded[name]) for name in greatest}
        upsert: Insert = insert.on_conflict_do_update(
            index_elements=["run_id"], set_=news, where=runs.c.outcome.is_(None)
        )
        return upsert

    @cached_property
    def ended(self) -> Select[tuple[str | None, str | None]]:
        """Outcome and token of a run."""
        from sqlalchemy import bindparam, select

        runs = tables().runs
        return select(runs.c.outcome, runs.c.token).where(runs.c.run_id == bindparam("of_run"))

    @cached_property
    def extend(self) -> Update:
        """Say how much time an open run was granted; that never grows less."""
        from sqlalchemy import bindparam

        runs = tables().runs
        news = {"extended_s": _greatest(runs.c.extended_s, bindparam("new_extended_s"))}
        return runs.update().where(runs.c.run_id == bindparam("of_run"), runs.c.outcome.is_(None)).values(news)

    @cached_property
    def judge_run(self) -> Update:
        """Say why an open run will end, unless somebody has."""
        from sqlalchemy import bindparam

        return self._judge(tables().runs.c.run_id == bindparam("of_run"))

    @cached_property
    def judge_beforehand(self) -> Insert:
        """Say why a run will end that may not be known yet, unless somebody has."""
        insert: Insert = self._dialect.insert(tables().verdicts).on_conflict_do_nothing(index_elements=["run_id"])
        return insert

    @cached_property
    def judge_dag_run(self) -> Update:
        """The same of all open runs of a DAG run."""
        from sqlalchemy import bindparam

        runs = tables().runs
        return self._judge((runs.c.dag_id == bindparam("of_dag")) & (runs.c.dag_run_id == bindparam("of_dag_run")))

    @staticmethod
    def _judge(concerned: ColumnElement[bool]) -> Update:
        from sqlalchemy import bindparam, func

        runs = tables().runs
        # Of those that are judged already nothing changes: they are counted only.
        news = {
            name: func.coalesce(runs.c[name], bindparam(f"new_{name}"))
            for name in ("verdict_outcome", "verdict_reason", "verdict_ns")
        }
        return runs.update().where(concerned, runs.c.outcome.is_(None)).values(news)

    @cached_property
    def link(self) -> Update:
        """Say of a run which was the try before."""
        from sqlalchemy import bindparam, select

        runs = tables().runs
        before = tables().runs.alias("before")
        same = [before.c[name] == runs.c[name] for name in ("dag_id", "dag_run_id", "task_id", "map_index")]
        found = select(before.c.run_id).where(*same, before.c.try_number == runs.c.try_number - 1).limit(1)
        mine = (runs.c.run_id == bindparam("of_run")) & runs.c.retry_of.is_(None)
        return runs.update().where(mine).values(retry_of=found.scalar_subquery())

    @cached_property
    def link_next(self) -> Update:
        """Say of the next try, if it is here already, that it is a retry of this run."""
        from sqlalchemy import bindparam

        runs = tables().runs
        same = [
            runs.c[name] == bindparam(f"of_{name}")
            for name in ("dag_id", "dag_run_id", "task_id", "map_index", "try_number")
        ]
        return runs.update().where(*same, runs.c.retry_of.is_(None)).values(retry_of=bindparam("of_run"))

    @cache  # noqa: B019  (there is one for each process)
    def known(self, table: Table) -> Select[tuple[int, int]]:
        """First and newest start of a model or task."""
        from sqlalchemy import bindparam, select

        of_key = [column == bindparam(f"of_{column.name}") for column in table.primary_key]
        return select(table.c.first_seen_ns, table.c.last_seen_ns).where(*of_key)

    @cache  # noqa: B019
    def note(self, table: Table) -> Insert:
        """Insert a model or task with its first and newest run; of a known one keep the definition that is newest."""
        from sqlalchemy import case

        insert = self._dialect.insert(table)
        new = insert.excluded
        is_newest, is_oldest = new.last_seen_ns > table.c.last_seen_ns, new.first_seen_ns < table.c.first_seen_ns
        news = {
            "definition": case((is_newest, new.definition), else_=table.c.definition),
            "last_seen_ns": case((is_newest, new.last_seen_ns), else_=table.c.last_seen_ns),
            "first_seen_ns": case((is_oldest, new.first_seen_ns), else_=table.c.first_seen_ns),
        }
        key = [column.name for column in table.primary_key]
        upsert: Insert = insert.on_conflict_do_update(index_elements=key, set_=news)
        return upsert

    @cached_property
    def declared(self) -> Select[Any]:
        """What is known of a task."""
        from sqlalchemy import bindparam

        tasks = tables().tasks
        return tasks.select().where(
            tasks.c.dag_id == bindparam("of_dag_id"), tasks.c.task_id == bindparam("of_task_id")
        )

    @cached_property
    def declare_task(self) -> Insert:
        """Insert a task; of a known one, say what it is now, and that it was known before, if it was."""
        return self._declare(tables().tasks, ("definition", "source", "schedule", "next_due_ns", "state"))

    @cached_property
    def declare_model(self) -> Insert:
        """The same of a model."""
        return self._declare(tables().models, ("definition",))

    def _declare(self, table: Table, names: Collection[str]) -> Insert:
        from sqlalchemy import case

        insert = self._dialect.insert(table)
        first, known = insert.excluded.first_seen_ns, table.c.first_seen_ns
        news = {name: insert.excluded[name] for name in names}
        news["first_seen_ns"] = case((first < known, first), else_=known)
        key = [column.name for column in table.primary_key]
        upsert: Insert = insert.on_conflict_do_update(index_elements=key, set_=news)
        return upsert

    @cached_property
    def succeed(self) -> Update:
        """Say when a run of a model has succeeded, unless a later one has."""
        from sqlalchemy import bindparam

        models = tables().models
        news = {"last_success_ns": bindparam("new_ns")}
        is_newer = models.c.last_success_ns.is_(None) | (models.c.last_success_ns < bindparam("new_ns"))
        return models.update().where(models.c.name == bindparam("of_name"), is_newer).values(news)


def _greatest(known: Any, new: Any) -> ColumnElement[Any]:
    """Return the greater one, as both databases write it; `known` may be NULL."""
    from sqlalchemy import case

    return case((known >= new, known), else_=new)
