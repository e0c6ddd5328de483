"""What is known of promises: of some causes, of those that are open, and of what a run must know to judge itself."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from batch_observability.ledger import columns
from batch_observability.ledger.queries import AT_ONCE, batches
from batch_observability.ledger.records import OpenPromise, PromiseRow, Run, Standing
from batch_observability.ledger.tables import IS_OPEN, tables

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row


def standing(connection: Connection, run: Run) -> Standing:
    """Return what a run must know of before it."""
    first_start_ns, extended_s = _tries(connection, run)
    return Standing(
        since_ns=_since_ns(connection, run),
        first_start_ns=first_start_ns,
        extended_s=extended_s,
        told=_told(connection, run),
        open=_open(connection, run),
    )


def promises_of(connection: Connection, keys: Collection[str]) -> dict[str, PromiseRow]:
    """Return what is known of each of these causes that is."""
    promises = tables().promises
    asked = {columns.text(key): key for key in keys}
    return {
        asked[row.key]: row
        for some in batches(asked, AT_ONCE)
        for row in _rows(connection.execute(promises.select().where(promises.c.key.in_(some))))
    }


def open_promises(connection: Connection, since_ns: int = 0, model: str = "") -> list[PromiseRow]:
    """Return what was breached since then and has not recovered, newest first; of a model, if one is given."""
    from sqlalchemy import text

    promises = tables().promises
    found = promises.select().where(text(IS_OPEN), promises.c.breached_ns >= since_ns)
    if model:
        found = found.where(promises.c.model_name == columns.text(model))
    return list(_rows(connection.execute(found.order_by(promises.c.breached_ns.desc(), promises.c.key))))


def _since_ns(connection: Connection, run: Run) -> int | None:
    from sqlalchemy import select

    tasks = tables().tasks
    dag_id, task_id = (columns.text(name) for name in ((run.dag_id, run.task_id) if run.dag_id else ("", run.job)))
    found = select(tasks.c.first_seen_ns).where(tasks.c.dag_id == dag_id, tasks.c.task_id == task_id)
    since_ns: int | None = connection.execute(found).scalar()
    return since_ns


def _tries(connection: Connection, run: Run) -> tuple[int | None, float]:
    """Return the start of the first try after the last clear, and the seconds that all of them were granted."""
    from sqlalchemy import func, select

    runs = tables().runs
    concerned: ColumnElement[bool] = runs.c.run_id == columns.text(run.run_id)
    if run.dag_run_id:
        names = ("dag_id", "dag_run_id", "task_id", "map_index", "clear_number")
        concerned = _all(runs.c[name] == columns.plain(getattr(run, name)) for name in names)
    found = select(func.min(runs.c.start_ns), func.sum(runs.c.extended_s)).where(concerned)
    first_start_ns, extended_s = connection.execute(found).one()
    return first_start_ns, float(extended_s or 0)


def _told(connection: Connection, run: Run) -> dict[str, tuple[int | None, int | None]]:
    """Return what was told of this run, its slot and its DAG run, also as one that nobody ran."""
    from sqlalchemy import or_, select

    promises = tables().promises
    own = [promises.c.run_id == columns.text(run.run_id)]
    if run.dag_run_id:
        own.append(promises.c.dag_run_id == columns.text(run.dag_run_id))
    if run.due_ns is not None:
        own.append(promises.c.due_ns == columns.whole(run.due_ns))
    found = select(promises.c.key, promises.c.at_risk_ns, promises.c.breached_ns).where(
        promises.c.resource == columns.text(run.resource),
        promises.c.map_index.in_((columns.whole(run.map_index), -1)),
        or_(*own),
    )
    return {row.key: (row.at_risk_ns, row.breached_ns) for row in connection.execute(found)}


def _open(connection: Connection, run: Run) -> list[OpenPromise]:
    from sqlalchemy import select, text

    promises = tables().promises
    found = select(promises.c.key, promises.c.objective, promises.c.breached_ns).where(
        text(IS_OPEN),
        promises.c.model_name == columns.name_of(run.model),
        (promises.c.resource == columns.text(run.resource)) | promises.c.episode.is_not(None),
    )
    ordered = connection.execute(found.order_by(promises.c.breached_ns, promises.c.key))
    return [OpenPromise(key=row.key, objective=row.objective, breached_ns=row.breached_ns) for row in ordered]


def _rows(found: Iterable[Row[Any]]) -> Iterable[PromiseRow]:
    names = [f.name for f in fields(PromiseRow)]
    for row in found:
        values = {name: getattr(row, name) for name in names}
        yield PromiseRow(**{**values, "missed": bool(row.missed), "model": json.loads(row.model)})


def _all(conditions: Iterable[ColumnElement[bool]]) -> ColumnElement[bool]:
    from sqlalchemy import and_

    return and_(*conditions)
