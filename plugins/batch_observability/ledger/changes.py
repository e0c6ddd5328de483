"""
One change of the ledger as rows, within a transaction of the caller.

Each is idempotent, and an ending is claimed by whoever comes first: one statement writes it if nobody has, so that of
any number of processes that try at once exactly one has closed the run.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from batch_observability.ids import hex_span_id, hex_trace_id
from batch_observability.ledger.records import Change, Finished, Paused, Run, Started, Verdict
from batch_observability.ledger.statements import Statements
from batch_observability.ledger.tables import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable, Table

_MAX = 2**63 - 1
_NOT_COLUMNS = ("run", "stages", "measurements")
_OF_MODEL = {"model_name": "name", "model_version": "version", "service": "service", "owner": "owner", "tier": "tier"}


class Writer:
    """Writes changes within one transaction. `finish` must be called before it is committed."""

    def __init__(self, statements: Statements, connection: Connection) -> None:
        self._statements = statements
        self._connection = connection
        self._stages: list[dict[str, Any]] = []
        self._measurements: list[dict[str, Any]] = []
        # Newest run of each model and task.
        self._models: dict[tuple[str, ...], Run] = {}
        self._tasks: dict[tuple[str, ...], Run] = {}

    def write(self, change: Change) -> bool:
        """Write one change; return what `Ledger.apply` does."""
        match change:
            case Started():
                return self._start(change)
            case Paused():
                return self._pause(change)
            case Verdict():
                return self._judge(change)
            case Finished():
                return self._finish(change)

    def finish(self) -> None:
        """Write what is written for all changes together."""
        for table, rows in ((tables().stages, self._stages), (tables().measurements, self._measurements)):
            if rows:
                self._connection.execute(table.insert(), rows)
        # Last and sorted: the transactions of others wait for these rows.
        for table, newest in ((tables().models, self._models), (tables().tasks, self._tasks)):
            for key, run in sorted(newest.items()):
                self._note(table, key, run)

    def _start(self, change: Started) -> bool:
        values = {**_columns(change.run), "context": json.dumps(change.context)}
        if self._wrote(self._statements.start, values):
            self._arrived(change.run)
            return True
        return self._ended(change.run)[0] is None

    def _pause(self, change: Paused) -> bool:
        values = {**_columns(change.run), "state": _text(change.state), "paused_ns": _whole(change.paused_ns)}
        written = self._wrote(self._statements.pause, values)
        if written:
            self._arrived(change.run)
        return written

    def _judge(self, change: Verdict) -> bool:
        news = {
            "new_verdict_outcome": _text(change.outcome),
            "new_verdict_reason": _text(change.reason),
            "new_verdict_ns": _whole(change.time_ns),
        }
        if change.run_id:
            run_id = _text(change.run_id)
            beforehand = {name.removeprefix("new_"): value for name, value in news.items()}
            self._connection.execute(self._statements.judge_beforehand, {"run_id": run_id, **beforehand})
            return self._wrote(self._statements.judge_run, {**news, "of_run": run_id})
        if not change.dag_id or not change.dag_run_id:
            # It would be about every cron job.
            raise ValueError("a verdict is of a run or of a DAG run, and this one names neither")
        whose = {"of_dag": _text(change.dag_id), "of_dag_run": _text(change.dag_run_id)}
        return self._wrote(self._statements.judge_dag_run, {**news, **whose})

    def _finish(self, change: Finished) -> bool:
        values = {**_columns(change.run), **_ending(change)}
        if not self._wrote(self._statements.finish, values):
            return bool(self._ended(change.run)[1] == values["token"])
        self._stages += _stages(change)
        self._measurements += _measurements(change)
        self._arrived(change.run)
        return True

    def _wrote(self, statement: Executable, values: dict[str, Any]) -> bool:
        return bool(self._connection.execute(statement, values).rowcount > 0)

    def _ended(self, run: Run) -> tuple[str | None, str | None]:
        outcome, token = self._connection.execute(self._statements.ended, {"of_run": _text(run.run_id)}).one()
        return outcome, token

    def _arrived(self, run: Run) -> None:
        _keep_newest(self._models, (_text(str(run.model.get("name") or "")),), run)
        if run.dag_id:
            _keep_newest(self._tasks, (_text(run.dag_id), _text(run.task_id)), run)
        if run.dag_run_id and run.try_number > 0:
            self._link(run)

    def _link(self, run: Run) -> None:
        """Link this try with the one before and the next: they may come in any order."""
        run_id = _text(run.run_id)
        if run.try_number > 1:
            self._connection.execute(self._statements.link, {"of_run": run_id})
        same = {f"of_{name}": _value(getattr(run, name)) for name in ("dag_id", "dag_run_id", "task_id", "map_index")}
        following = {**same, "of_try_number": _whole(run.try_number + 1), "of_run": run_id}
        self._connection.execute(self._statements.link_next, following)

    def _note(self, table: Table, key: tuple[str, ...], run: Run) -> None:
        definition, start_ns = _json(run.model), _whole(run.start_ns)
        of_key = dict(zip((column.name for column in table.primary_key), key, strict=True))
        asked = {f"of_{name}": value for name, value in of_key.items()}
        known = self._connection.execute(self._statements.known(table), asked).first()
        # The end of a run mostly says nothing new of its model: to write that again would make others wait.
        if known and known[0] <= start_ns <= known[1] and (start_ns < known[1] or definition == known[2]):
            return
        values = {"definition": definition, "first_seen_ns": start_ns, "last_seen_ns": start_ns}
        self._connection.execute(self._statements.note(table), {**of_key, **values})


def _keep_newest(newest: dict[tuple[str, ...], Run], key: tuple[str, ...], run: Run) -> None:
    if key not in newest or run.start_ns >= newest[key].start_ns:
        newest[key] = run


def _columns(run: Run) -> dict[str, Any]:
    return {
        **{f.name: _value(getattr(run, f.name)) for f in fields(run) if f.name != "model"},
        **{column: _text(str(run.model.get(name) or "")) for column, name in _OF_MODEL.items()},
        "trace_id": hex_trace_id(run.trace_id),
        "span_id": hex_span_id(run.span_id),
        "model": _json(run.model),
    }


def _ending(change: Finished) -> dict[str, Any]:
    return {f.name: _value(getattr(change, f.name)) for f in fields(change) if f.name not in _NOT_COLUMNS}


def _stages(change: Finished) -> list[dict[str, Any]]:
    return [
        {
            **{f.name: _value(getattr(stage, f.name)) for f in fields(stage)},
            "run_id": _text(change.run.run_id),
            "position": position,
            "span_id": hex_span_id(stage.span_id),
            "parent_id": hex_span_id(stage.parent_id),
        }
        for position, stage in enumerate(change.stages)
    ]


def _measurements(change: Finished) -> list[dict[str, Any]]:
    return [
        {
            **{f.name: _value(getattr(measurement, f.name)) for f in fields(measurement)},
            "run_id": _text(change.run.run_id),
            "position": position,
        }
        for position, measurement in enumerate(change.measurements)
        # SQLite has no NaN.
        if math.isfinite(measurement.value)
    ]


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def _value(value: Any) -> Any:
    """Return a value as both databases take it: a run must not be lost for an odd one."""
    if isinstance(value, str):
        return _text(value)
    return _whole(value) if isinstance(value, int) else value


def _text(value: str) -> str:
    # PostgreSQL has no NUL in a text; half a surrogate pair is no UTF-8.
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _whole(value: int) -> int:
    return min(max(value, -_MAX), _MAX)
