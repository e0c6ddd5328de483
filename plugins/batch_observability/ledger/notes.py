"""
What is known of models and tasks: by their runs, and by who declared them. Written last, and in one order.

The transactions of others wait for these rows: each is written only if that says something new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batch_observability.ledger import columns
from batch_observability.ledger.records import Declared, Model, Run
from batch_observability.ledger.statements import Statements
from batch_observability.ledger.tables import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping, Table

Key = tuple[str, ...]


class Notes:
    """What the changes of one transaction say of models and tasks."""

    def __init__(self, statements: Statements, connection: Connection) -> None:
        self._statements = statements
        self._connection = connection
        # Newest run of each model and task, and the start of the oldest.
        self._models: dict[Key, tuple[Run, int]] = {}
        self._tasks: dict[Key, tuple[Run, int]] = {}
        self._successes: dict[Key, int] = {}
        self._declared: dict[Key, Declared] = {}

    def arrived(self, run: Run) -> None:
        """Note that there is a run."""
        _keep(self._models, (columns.name_of(run.model),), run)
        if run.dag_id:
            _keep(self._tasks, (columns.text(run.dag_id), columns.text(run.task_id)), run)
        elif run.job:
            _keep(self._tasks, ("", columns.text(run.job)), run)

    def succeeded(self, run: Run, end_ns: int) -> None:
        """Note that a run has succeeded."""
        key = (columns.name_of(run.model),)
        self._successes[key] = max(self._successes.get(key, -(2**63)), columns.whole(end_ns))

    def declared(self, change: Declared) -> None:
        """Note that a task is a batch model."""
        self._declared[columns.text(change.dag_id), columns.text(change.task_id)] = change

    def first_seen_ns(self, dag_id: str, task_id: str) -> int | None:
        """Return since when a task (or cron job, of no DAG) is known; None if it is not."""
        key = columns.text(dag_id), columns.text(task_id)
        known = self._of_task(key)
        seen = [columns.whole(self._declared[key].since_ns)] if key in self._declared else []
        return min([*seen, *([known["first_seen_ns"]] if known else [])], default=None)

    def write(self) -> None:
        """Write it all, models before tasks, each in the order of their names."""
        news = {key: change for key, change in self._declared.items() if self._says_more(key, change)}
        declared = {(columns.name_of(change.model),): change for change in news.values()}
        models, tasks = tables().models, tables().tasks
        for key in sorted({*self._models, *self._successes, *declared}):
            if key in self._models:
                self._note(models, key, *self._models[key])
            if key in declared:
                values = _seen(declared[key].model, declared[key].since_ns)
                self._connection.execute(self._statements.declare_model, {"name": key[0], **values})
            if key in self._successes:
                success = {"of_name": key[0], "new_ns": self._successes[key]}
                self._connection.execute(self._statements.succeed, success)
        for key in sorted({*self._tasks, *news}):
            if key in self._tasks:
                run, first_ns = self._tasks[key]
                self._note(tasks, key, run, first_ns, source=columns.text(run.source))
            if key in news:
                self._connection.execute(self._statements.declare_task, _declaration(key, news[key]))

    def _note(self, table: Table, key: Key, run: Run, first_ns: int, **more: str) -> None:
        of_key = dict(zip((column.name for column in table.primary_key), key, strict=True))
        asked = {f"of_{name}": value for name, value in of_key.items()}
        known = self._connection.execute(self._statements.known(table), asked).first()
        values = {**_seen(run.model, run.start_ns), "first_seen_ns": columns.whole(first_ns)}
        # The end of a run says nothing new of its model.
        if not known or values["first_seen_ns"] < known[0] or values["last_seen_ns"] > known[1]:
            self._connection.execute(self._statements.note(table), {**of_key, **values, **more})

    def _says_more(self, key: Key, change: Declared) -> bool:
        known, said = self._of_task(key), _declaration(key, change)
        return not known or known["first_seen_ns"] > said["first_seen_ns"] or any(known[n] != said[n] for n in _SAID)

    def _of_task(self, key: Key) -> RowMapping | None:
        asked = {"of_dag_id": key[0], "of_task_id": key[1]}
        return self._connection.execute(self._statements.declared, asked).mappings().first()


_SAID = ("definition", "source", "schedule", "next_due_ns", "state")


def _declaration(key: Key, change: Declared) -> dict[str, Any]:
    said = {name: columns.plain(getattr(change, name)) for name in ("source", "schedule", "next_due_ns", "state")}
    return {"dag_id": key[0], "task_id": key[1], **_seen(change.model, change.since_ns), **said}


def _seen(model: Model, time_ns: int) -> dict[str, Any]:
    time_ns = columns.whole(time_ns)
    return {"definition": columns.definition(model), "first_seen_ns": time_ns, "last_seen_ns": time_ns}


def _keep(seen: dict[Key, tuple[Run, int]], key: Key, run: Run) -> None:
    newest, first_ns = seen.get(key, (run, run.start_ns))
    seen[key] = run if run.start_ns >= newest.start_ns else newest, min(first_ns, run.start_ns)
