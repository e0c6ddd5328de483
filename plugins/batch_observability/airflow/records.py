"""
Airflow's own records of task tries and of what its scheduler did to them, read from its database; never written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from batch_observability.airflow import due_records
from batch_observability.redact import redact_text

log = logging.getLogger("batch_observability.helper")

Row = dict[str, Any]
# The hook is called before the scheduler commits.
_COMMITTED_WITHIN_S = 10.0
_POLL_S = 0.2
_AT_ONCE = 500
# What the scheduler writes to its log of events when it gives a try up (jobs/scheduler_job_runner.py).
_GIVEN_UP = ("heartbeat timeout", "state mismatch")


class Records:
    """
    Airflow's records of task tries.

    A row has `id`, `past` (the task instance has gone on to another try), `state`, dates in UTC and so on.

    Args:
        url: of Airflow's database, for SQLAlchemy.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: Any = None

    def tries(self, dag_id: str, run_id: str) -> list[Row]:
        """Return all tries of a DAG run once its end is committed."""

        def read(connection: Any) -> Iterator[Row]:
            _wait_until_committed(connection, dag_id, run_id)
            for rows, query in _selects():
                yield from _read(connection, query.where(rows.c.dag_id == dag_id, rows.c.run_id == run_id))

        return self._ask_all(f"the tries of {dag_id} {run_id}", read)

    def by_id(self, ids: Collection[str]) -> dict[str, Row] | None:
        """Return the tries with these ids, as far as Airflow has them; None if it cannot be asked."""
        wanted = [UUID(one) for one in ids if _is_uuid(one)]

        def read(connection: Any) -> Iterator[Row]:
            for start in range(0, len(wanted), _AT_ONCE):
                for rows, query in _selects():
                    key = rows.c.id if "id" in rows.c else rows.c.task_instance_id
                    yield from _read(connection, query.where(key.in_(wanted[start : start + _AT_ONCE])))

        found = self._ask("tries that are open", read)
        return None if found is None else {str(row["id"]): row for row in found}

    def of_dags(self, dag_ids: Collection[str], ended_since: datetime | None) -> list[Row]:
        """Return the tries of all DAG runs of some DAGs that go on, or that have ended since a moment."""
        from sqlalchemy import DateTime, String, and_, column, or_, table

        run = table(
            "dag_run",
            *(column(name, String) for name in ("dag_id", "run_id", "state")),
            column("end_date", DateTime(timezone=True)),
        )
        chosen = sorted(dag_ids)

        def read(connection: Any) -> Iterator[Row]:
            for start in range(0, len(chosen), _AT_ONCE):
                some = run.c.dag_id.in_(chosen[start : start + _AT_ONCE])
                recent = run.c.state == "running"
                if ended_since is not None:
                    recent = or_(recent, run.c.end_date >= ended_since)
                for rows, query in _selects():
                    together = and_(rows.c.dag_id == run.c.dag_id, rows.c.run_id == run.c.run_id)
                    yield from _read(connection, query.join(run, together).where(some, recent))

        return self._ask_all("the tries of running DAG runs", read)

    def dags(self, dag_ids: Collection[str], now: datetime) -> list[Row] | None:
        """Return what Airflow says of some DAGs, and whether their next DAG run is due and there is none."""

        def read(connection: Any) -> Iterator[Row]:
            for some in _chunks(sorted(dag_ids)):
                yield from _read(connection, due_records.select_dags(some, now))

        return self._ask("the DAGs of batch models", read)

    def instances(self, wanted: due_records.Wanted) -> list[Row] | None:
        """Return task instances with what concerns their DAG runs; those tried before have an `earlier_start`."""

        def read(connection: Any) -> Iterator[Row]:
            for some in _chunks(sorted(wanted.tasks)):
                these = replace(wanted, tasks=some)
                earlier: dict[tuple[Any, ...], datetime] = {}
                for query in (due_records.select_first_pokes(these), due_records.select_first_tries(these)):
                    for *place, start in connection.execute(query):
                        earlier[tuple(place)] = start
                for row in _read(connection, due_records.select_instances(these)):
                    place = [row[name] for name in ("dag_id", "run_id", "task_id", "map_index")]
                    row["earlier_start"] = _utc(earlier.get(tuple(place)))
                    yield row

        return self._ask("the instances of batch models", read)

    def given_up(self, row: Row) -> str:
        """Return what the scheduler said when it gave a try up, "" if it did not."""
        from sqlalchemy import Integer, String, column, select, table

        names = ("event", "extra", "dag_id", "task_id", "run_id")
        logged = table(
            "log", *(column(c, String) for c in names), column("map_index", Integer), column("try_number", Integer)
        )
        keys = ("dag_id", "task_id", "run_id", "map_index", "try_number")
        query = select(logged.c.event, logged.c.extra).where(
            logged.c.event.in_(_GIVEN_UP), *(logged.c[key] == row[key] for key in keys)
        )
        found = self._ask_all("what the scheduler gave up", lambda connection: _read(connection, query))
        # The one follows from the other: what lost its heartbeat is then found to be in another state.
        texts = sorted(redact_text(f"{one['event']}: {one['extra'] or ''}") for one in found)
        return texts[0] if texts else ""

    def _ask_all(self, what: str, read: Callable[[Any], Iterator[Row]]) -> list[Row]:
        return self._ask(what, read) or []

    def _ask(self, what: str, read: Callable[[Any], Iterator[Row]]) -> list[Row] | None:
        """Return what is read; None if the database does not answer."""
        from sqlalchemy import create_engine
        from sqlalchemy.exc import SQLAlchemyError
        from sqlalchemy.pool import NullPool

        try:
            if self._engine is None:
                self._engine = create_engine(self._url, poolclass=NullPool)
            with self._engine.connect() as connection:
                return list(read(connection))
        except (SQLAlchemyError, ImportError) as error:
            # Its text may hold the URL; the class says enough.
            log.warning("%s cannot be read from Airflow's database: %s", what, type(error).__name__)
            return None


def _read(connection: Any, query: Any) -> Iterator[Row]:
    result = connection.execute(query)
    names = tuple(result.keys())
    for row in result:
        yield {
            name: _utc(value) if isinstance(value, datetime) else value for name, value in zip(names, row, strict=True)
        }


def _chunks(chosen: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(chosen), _AT_ONCE):
        yield chosen[start : start + _AT_ONCE]


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _wait_until_committed(connection: Any, dag_id: str, run_id: str) -> None:
    from sqlalchemy import String, column, select, table

    run = table("dag_run", column("dag_id", String), column("run_id", String), column("state", String))
    query = select(run.c.state).where(run.c.dag_id == dag_id, run.c.run_id == run_id)
    give_up = time.monotonic() + _COMMITTED_WITHIN_S
    while connection.scalar(query) in ("running", "queued") and time.monotonic() < give_up:
        # The next look is to be in a transaction of its own.
        connection.rollback()
        time.sleep(_POLL_S)


def _selects() -> Iterator[tuple[Any, Any]]:
    """Yield the two tables of tries, the past ones first, each with its SELECT."""
    from sqlalchemy import DateTime, Integer, String, Uuid, column, literal, select, table

    columns = {
        "dag_id": String,
        "run_id": String,
        "task_id": String,
        "map_index": Integer,
        "try_number": Integer,
        "state": String,
        "queued_dttm": DateTime(timezone=True),
        "start_date": DateTime(timezone=True),
        "end_date": DateTime(timezone=True),
        "updated_at": DateTime(timezone=True),
        "operator": String,
        "hostname": String,
        # An own JSON type of Airflow's: only the traceparent in it is looked for.
        "context_carrier": String,
    }
    for name, key in (("task_instance_history", "task_instance_id"), ("task_instance", "id")):
        rows = table(name, column(key, Uuid), *(column(c, kind) for c, kind in columns.items()))
        past = literal(name == "task_instance_history").label("past")
        yield rows, select(rows.c[key].label("id"), past, *(rows.c[c] for c in columns))


def _utc(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value
