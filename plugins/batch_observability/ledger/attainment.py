"""
How models kept what they promised: counted by the database, in indexes made for it, for all models at once.

Runs count by when they ended, breaches by when they happened. A failed run that was retried has not failed for good.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from batch_observability.ledger import columns
from batch_observability.ledger.queries import AT_ONCE, batches
from batch_observability.ledger.records import Model, ModelStanding
from batch_observability.ledger.standing import open_promises
from batch_observability.ledger.tables import HAS_ENDED, HAS_FAILED, tables
from batch_observability.objective import OBJECTIVES
from batch_observability.schema import Outcome

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, FromClause, Row

# Succeeded, failed, end of the newest failure.
Rate = tuple[int, int, int | None]
# Of each model, fields of its standing.
Found = dict[str, dict[str, Any]]


def success_rates(connection: Connection, since_ns_by_model: Mapping[str, int]) -> dict[str, Rate]:
    """Return of each model how many runs succeeded and failed for good since a time, and when the newest failed."""
    since = {columns.text(name): columns.whole(since_ns) for name, since_ns in since_ns_by_model.items()}
    succeeded, failed = _successes(connection, since), _failures(connection, since)
    return {
        name: (succeeded.get(columns.text(name), 0), *failed.get(columns.text(name), (0, None)))
        for name in since_ns_by_model
    }


def newest_successes(connection: Connection) -> dict[str, tuple[Model, int, int | None]]:
    """Return of each model what it is, when it was first known, and when it last succeeded."""
    return {
        row.name: (json.loads(row.definition), row.first_seen_ns, row.last_success_ns)
        for row in connection.execute(tables().models.select())
    }


def attainment(
    connection: Connection, since_ns: int, recent_ns: int, *, model: str = "", owner: str = ""
) -> list[ModelStanding]:
    """Return how models stand, by name: over a window, and over the end of it that begins at `recent_ns`."""
    model = columns.text(model)
    found = _models(connection, model, owner)
    for row in _counts(connection, since_ns, recent_ns, model):
        if one := found.get(row.model_name):
            _count(one, row)
    for row in _failed(connection, since_ns, recent_ns, model):
        if one := found.get(row.model_name):
            one |= {"failed": row.number, "recent_failed": int(row.recent)}
    for row in _broken(connection, since_ns, model):
        if one := found.get(row.model_name):
            one["broken"][row.objective] = row.number
    for name, number in _open_runs(connection).items():
        if one := found.get(name):
            one["open_runs"] = number
    for promise in open_promises(connection, model=model):
        if one := found.get(promise.model_name):
            one["open"].append(promise)
    _add_tasks(connection, found)
    return [ModelStanding(name=name, **values) for name, values in sorted(found.items())]


def _models(connection: Connection, model: str, owner: str) -> Found:
    """Return the models that are asked for, with their newest run."""
    from sqlalchemy import select

    models, runs = tables().models, tables().runs
    newest = select(runs).where(runs.c.model_name == models.c.name).order_by(runs.c.start_ns.desc()).limit(1)
    known = select(
        models,
        newest.with_only_columns(runs.c.start_ns).scalar_subquery().label("last_start_ns"),
        newest.with_only_columns(runs.c.outcome).scalar_subquery().label("last_outcome"),
    )
    found: Found = {}
    for row in connection.execute(known.where(models.c.name == model) if model else known):
        definition = json.loads(row.definition)
        if not owner or definition.get("owner") == owner:
            copied = {name: getattr(row, name) for name in ("last_start_ns", "last_outcome", "last_success_ns")}
            made = {"kept": {}, "broken": {}, "open": [], "succeeded": 0, "recent_succeeded": 0}
            found[row.name] = {"definition": definition, **copied, **made}
    return found


def _count(one: dict[str, Any], row: Row[Any]) -> None:
    for objective in _names(row.kept or 0):
        one["kept"][objective] = one["kept"].get(objective, 0) + row.number
    if row.outcome == Outcome.SUCCESS:
        one["succeeded"] += row.number
        one["recent_succeeded"] += int(row.recent)


@cache
def _names(kept: int) -> list[str]:
    return [objective for bit, objective in enumerate(OBJECTIVES) if kept >> bit & 1]


def _counts(connection: Connection, since_ns: int, recent_ns: int, model: str) -> list[Row[Any]]:
    """Return the number of runs that ended, by model, outcome and what they kept, in all and recently."""
    from sqlalchemy import case, func, select, text

    runs = tables().runs
    recent = func.sum(case((runs.c.end_ns >= recent_ns, 1), else_=0)).label("recent")
    of = (runs.c.model_name, runs.c.outcome, runs.c.kept)
    counted = select(*of, func.count().label("number"), recent).where(text(HAS_ENDED), runs.c.end_ns >= since_ns)
    counted = counted.where(runs.c.model_name == model) if model else counted
    return list(connection.execute(counted.group_by(*of)))


def _successes(connection: Connection, since: Mapping[str, int]) -> dict[str, int]:
    """Return the number of successes of each model since its time."""
    from sqlalchemy import func, select

    runs = tables().runs
    found: dict[str, int] = {}
    for some in batches(since.items(), AT_ONCE):
        asked = _asked(some)
        of = (runs.c.model_name == asked.c.name, runs.c.outcome == Outcome.SUCCESS, runs.c.end_ns >= asked.c.since_ns)
        counted = select(func.count()).select_from(runs).where(*of).correlate(asked).scalar_subquery()
        found |= {row.name: row.number for row in connection.execute(select(asked.c.name, counted.label("number")))}
    return found


def _failures(connection: Connection, since: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return the number of runs of each model that failed for good since its time, and when the newest ended."""
    from sqlalchemy import func, select

    runs = tables().runs
    found: dict[str, tuple[int, int]] = {}
    for some in batches(since.items(), AT_ONCE):
        asked = _asked(some)
        of = (runs.c.model_name == asked.c.name, runs.c.end_ns >= asked.c.since_ns, *_for_good())
        counted = select(asked.c.name, func.count(), func.max(runs.c.end_ns)).where(*of).group_by(asked.c.name)
        found |= {name: (number, newest_ns) for name, number, newest_ns in connection.execute(counted)}
    return found


def _failed(connection: Connection, since_ns: int, recent_ns: int, model: str) -> list[Row[Any]]:
    """Return the number of runs that failed for good, by model, in all and recently."""
    from sqlalchemy import case, func, select

    runs = tables().runs
    recent = func.sum(case((runs.c.end_ns >= recent_ns, 1), else_=0)).label("recent")
    counted = select(runs.c.model_name, func.count().label("number"), recent).where(runs.c.end_ns >= since_ns)
    counted = counted.where(runs.c.model_name == model) if model else counted
    return list(connection.execute(counted.where(*_for_good()).group_by(runs.c.model_name)))


def _for_good() -> tuple[ColumnElement[bool], ...]:
    from sqlalchemy import exists, text

    runs, retry = tables().runs, tables().runs.alias("retry")
    return text(HAS_FAILED), ~exists().where(retry.c.retry_of == runs.c.run_id)


def _asked(some: Sequence[tuple[str, int]]) -> FromClause:
    from sqlalchemy import BigInteger, Text, column, values

    return values(column("name", Text), column("since_ns", BigInteger), name="asked").data(list(some)).cte("asked")


def _broken(connection: Connection, since_ns: int, model: str) -> list[Row[Any]]:
    """Return the number of breaches by model and objective."""
    from sqlalchemy import func, select

    promises = tables().promises
    of = (promises.c.model_name, promises.c.objective)
    counted = select(*of, func.count().label("number")).where(promises.c.breached_ns >= since_ns)
    counted = counted.where(promises.c.model_name == model) if model else counted
    return list(connection.execute(counted.group_by(*of)))


def _open_runs(connection: Connection) -> dict[str, int]:
    from sqlalchemy import select

    runs = tables().runs
    # To name the source, and not to group, is what makes SQLite read the few open runs and not all.
    found = select(runs.c.model_name).where(runs.c.outcome.is_(None), runs.c.source >= "")
    return Counter(connection.execute(found).scalars())


def _add_tasks(connection: Connection, found: Found) -> None:
    """Add when models are due next, and why their tasks will not run."""
    due: dict[str, list[int]] = defaultdict(list)
    states: dict[str, set[str]] = defaultdict(set)
    for row in connection.execute(tables().tasks.select()):
        name = columns.name_of(json.loads(row.definition))
        # What was told of a job is from when somebody looked last, which may be long ago: its schedule knows better.
        due[name] += [row.next_due_ns] if row.dag_id and row.next_due_ns is not None else []
        states[name] |= {row.state} - {""}
    for name, one in found.items():
        one |= {"next_due_ns": min(due[name], default=None), "state": ", ".join(sorted(states[name]))}
