"""
One change of the ledger as statements, within a transaction of the caller.

Each is idempotent, and an ending is claimed by whoever comes first: one statement writes it if nobody has, so that of
any number of processes that try at once exactly one has closed the run.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from batch_observability.ids import hex_span_id, hex_trace_id
from batch_observability.ledger.records import Change, Finished, Model, Paused, Run, Started, Verdict
from batch_observability.ledger.tables import tables

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Table

    from batch_observability.ledger.dialect import PostgreSQL, SQLite

_MAX = 2**63 - 1
# What only an open run needs: these can be large.
_WHILE_OPEN = ("context", "state", "paused_ns")
_NOT_COLUMNS = ("run", "stages", "measurements")


class Writer:
    """Writes changes within one transaction. `finish` must be called before it is committed."""

    def __init__(self, dialect: SQLite | PostgreSQL, connection: Connection) -> None:
        self._dialect = dialect
        self._connection = connection
        self._seen: dict[tuple[str, ...], Run] = {}

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
        """Note the models and tasks that were seen: last and sorted, as other transactions wait for these rows."""
        for key, run in sorted(self._seen.items()):
            if len(key) == 1:
                self._note(tables().models, {"name": key[0]}, run)
            else:
                self._note(tables().tasks, {"dag_id": key[0], "task_id": key[1]}, run)

    def _start(self, change: Started) -> bool:
        values = {**_columns(change.run), "context": json.dumps(change.context)}
        statement = self._dialect.insert(tables().runs).values(values)
        inserted = self._connection.execute(statement.on_conflict_do_nothing(index_elements=["run_id"])).rowcount == 1
        if inserted:
            self._arrived(change.run)
        return inserted or self._is_open(change.run.run_id)

    def _pause(self, change: Paused) -> bool:
        runs = tables().runs
        news = {"state": _text(change.state), "paused_ns": _whole(change.paused_ns)}
        statement = self._dialect.insert(runs).values({**_columns(change.run), **news})
        written = self._connection.execute(
            statement.on_conflict_do_update(index_elements=["run_id"], set_=news, where=runs.c.outcome.is_(None))
        )
        if written.rowcount == 1:
            self._arrived(change.run)
        return bool(written.rowcount == 1)

    def _judge(self, change: Verdict) -> bool:
        from sqlalchemy import func, select

        runs = tables().runs
        concerned = runs.c.outcome.is_(None) & _of_verdict(change)
        news = {
            "verdict_outcome": _text(change.outcome),
            "verdict_reason": _text(change.reason),
            "verdict_ns": _whole(change.time_ns),
        }
        self._connection.execute(runs.update().where(concerned, runs.c.verdict_outcome.is_(None)).values(news))
        return bool(self._connection.execute(select(func.count()).select_from(runs).where(concerned)).scalar_one())

    def _finish(self, change: Finished) -> bool:
        from sqlalchemy import select

        runs, run = tables().runs, change.run
        values = {**_columns(run), **_ending(change)}
        news = {**values, **dict.fromkeys(_WHILE_OPEN)}
        statement = self._dialect.insert(runs).values(values)
        written = self._connection.execute(
            statement.on_conflict_do_update(index_elements=["run_id"], set_=news, where=runs.c.outcome.is_(None))
        )
        if written.rowcount != 1:
            of_run = runs.c.run_id == values["run_id"]
            return bool(self._connection.execute(select(runs.c.token).where(of_run)).scalar_one() == values["token"])
        for table, rows in ((tables().stages, _stages(change)), (tables().measurements, _measurements(change))):
            if rows:
                self._connection.execute(table.insert(), rows)
        self._arrived(run)
        return True

    def _is_open(self, run_id: str) -> bool:
        from sqlalchemy import select

        runs = tables().runs
        return bool(
            self._connection.execute(
                select(runs.c.run_id).where(runs.c.run_id == _text(run_id), runs.c.outcome.is_(None))
            ).first()
        )

    def _arrived(self, run: Run) -> None:
        keys: list[tuple[str, ...]] = [(_text(str(run.model.get("name", ""))),)]
        if run.dag_id:
            keys.append((_text(run.dag_id), _text(run.task_id)))
        for key in keys:
            if key not in self._seen or run.start_ns >= self._seen[key].start_ns:
                self._seen[key] = run
        if run.dag_run_id and run.try_number > 0:
            self._link(run)

    def _link(self, run: Run) -> None:
        """Set `retry_of` of this try and of the next, whichever came first."""
        from sqlalchemy import select

        runs = tables().runs
        mine = runs.c.run_id == _text(run.run_id)
        unlinked = runs.c.retry_of.is_(None)
        if run.try_number > 1:
            before = select(runs.c.run_id).where(_try_of(run, run.try_number - 1)).limit(1).scalar_subquery()
            self._connection.execute(runs.update().where(mine, unlinked).values(retry_of=before))
        following = _try_of(run, run.try_number + 1)
        self._connection.execute(runs.update().where(following, unlinked).values(retry_of=_text(run.run_id)))

    def _note(self, table: Table, key: dict[str, str], run: Run) -> None:
        """Keep the definition of the newest run. Mostly nothing is new: to write would make others wait."""
        from sqlalchemy import case, select

        definition, start_ns = _json(run.model), _whole(run.start_ns)
        of_key = [table.c[name] == value for name, value in key.items()]
        found = self._connection.execute(
            select(table.c.first_seen_ns, table.c.last_seen_ns, table.c.definition).where(*of_key)
        ).first()
        if found and found[0] <= start_ns <= found[1] and (start_ns < found[1] or definition == found[2]):
            return
        statement = self._dialect.insert(table).values(
            **key, definition=definition, first_seen_ns=start_ns, last_seen_ns=start_ns
        )
        is_newest = statement.excluded.last_seen_ns >= table.c.last_seen_ns
        is_oldest = statement.excluded.first_seen_ns < table.c.first_seen_ns
        news = {
            "definition": case((is_newest, statement.excluded.definition), else_=table.c.definition),
            "last_seen_ns": case((is_newest, statement.excluded.last_seen_ns), else_=table.c.last_seen_ns),
            "first_seen_ns": case((is_oldest, statement.excluded.first_seen_ns), else_=table.c.first_seen_ns),
        }
        self._connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=news))


def _of_verdict(change: Verdict) -> ColumnElement[bool]:
    runs = tables().runs
    if change.run_id:
        return runs.c.run_id == _text(change.run_id)
    if not change.dag_id or not change.dag_run_id:
        # It would be about every cron job.
        raise ValueError("a verdict is of a run or of a DAG run, and this one names neither")
    return (runs.c.dag_id == _text(change.dag_id)) & (runs.c.dag_run_id == _text(change.dag_run_id))


def _try_of(run: Run, number: int) -> ColumnElement[bool]:
    runs = tables().runs
    return (
        (runs.c.dag_id == _text(run.dag_id))
        & (runs.c.dag_run_id == _text(run.dag_run_id))
        & (runs.c.task_id == _text(run.task_id))
        & (runs.c.map_index == _whole(run.map_index))
        & (runs.c.try_number == _whole(number))
    )


def _columns(run: Run) -> dict[str, Any]:
    values = {f.name: _value(getattr(run, f.name)) for f in fields(run) if f.name != "model"}
    model = {key: _text(str(run.model.get(key) or "")) for key in ("name", "version", "service", "owner", "tier")}
    return {
        **values,
        "trace_id": hex_trace_id(run.trace_id),
        "span_id": hex_span_id(run.span_id),
        "model": _json(run.model),
        "model_name": model["name"],
        "model_version": model["version"],
        "service": model["service"],
        "owner": model["owner"],
        "tier": model["tier"],
    }


def _ending(change: Finished) -> dict[str, Any]:
    return {f.name: _value(getattr(change, f.name)) for f in fields(change) if f.name not in _NOT_COLUMNS}


def _stages(change: Finished) -> list[dict[str, Any]]:
    return [
        {
            "run_id": _text(change.run.run_id),
            "position": position,
            **{f.name: _value(getattr(stage, f.name)) for f in fields(stage)},
            "span_id": hex_span_id(stage.span_id),
            "parent_id": hex_span_id(stage.parent_id),
        }
        for position, stage in enumerate(change.stages)
    ]


def _measurements(change: Finished) -> list[dict[str, Any]]:
    return [
        {
            "run_id": _text(change.run.run_id),
            "position": position,
            **{f.name: _value(getattr(measurement, f.name)) for f in fields(measurement)},
        }
        for position, measurement in enumerate(change.measurements)
        # SQLite has no NaN.
        if math.isfinite(measurement.value)
    ]


def _json(model: Model) -> str:
    return json.dumps(model, sort_keys=True)


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
