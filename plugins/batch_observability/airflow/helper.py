"""
The scheduler's helper process: turns DAG runs that have ended into spans, from Airflow's own records.

It reads Airflow's database by itself, with two queries for each DAG run, and lives as long as the scheduler does.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from batch_observability import schema
from batch_observability.channel import Frame, FrameReader
from batch_observability.config import Settings
from batch_observability.export.deliver import Delivery, log_problems_to
from batch_observability.export.signals import Attribute, Batch, Error, Span
from batch_observability.export.target import choose
from batch_observability.ids import TraceParent, derive_span_id, derive_trace_id, parse_traceparent

log = logging.getLogger("batch_observability.helper")

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_FINISHED_OK = ("success", "skipped")
# The hook is called before the scheduler commits.
_COMMITTED_WITHIN_S = 10.0
_POLL_S = 0.2


def help_scheduler(sock: socket.socket) -> None:
    """Serve one scheduler until it is gone."""
    frames = _frames(sock)
    begin = next(frames, None)
    if begin is None or begin["t"] != "helper":
        return
    settings = Settings.from_frame(begin["settings"])
    sys.path.extend(path for path in begin["path"] if path not in sys.path)
    log_problems_to(settings.state_path / "logs")
    records = Records(begin["database"])
    # Asked once and kept: a backend that comes later is found by the next helper.
    delivery = Delivery(settings, choose(settings, os.environ))
    for frame in frames:
        if frame["t"] != "dag_run":
            continue
        try:
            delivery.deliver(dag_run_signals(frame, records, settings.airflow_service, begin["env"]))
        except Exception:
            log.warning("DAG run %s of %s is not told", frame.get("run_id"), frame.get("dag_id"), exc_info=True)


def _frames(sock: socket.socket) -> Iterator[Frame]:
    reader = FrameReader()
    while True:
        try:
            data = sock.recv(1 << 16)
        except ConnectionError:
            return
        if not data:
            return
        yield from reader.feed(data)


class Records:
    """
    Airflow's records of task tries, read-only.

    Args:
        url: of Airflow's database, for SQLAlchemy.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: Any = None

    def tries(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return all tries of a DAG run once its end is committed, with `id`, `state`, dates in UTC and so on."""
        from sqlalchemy import create_engine
        from sqlalchemy.exc import SQLAlchemyError
        from sqlalchemy.pool import NullPool

        try:
            if self._engine is None:
                self._engine = create_engine(self._url, poolclass=NullPool)
            with self._engine.connect() as connection:
                _wait_until_committed(connection, dag_id, run_id)
                rows = [dict(row) for query in _queries(dag_id, run_id) for row in connection.execute(query).mappings()]
        except (SQLAlchemyError, ImportError) as error:
            # Its text may hold the URL; the class says enough.
            log.warning("the tries of %s %s cannot be read: %s", dag_id, run_id, type(error).__name__)
            return []
        return [{name: _utc(value) for name, value in row.items()} for row in rows]


def _wait_until_committed(connection: Any, dag_id: str, run_id: str) -> None:
    from sqlalchemy import String, column, select, table

    run = table("dag_run", column("dag_id", String), column("run_id", String), column("state", String))
    query = select(run.c.state).where(run.c.dag_id == dag_id, run.c.run_id == run_id)
    give_up = time.monotonic() + _COMMITTED_WITHIN_S
    while connection.scalar(query) in ("running", "queued") and time.monotonic() < give_up:
        # The next look is to be in a transaction of its own.
        connection.rollback()
        time.sleep(_POLL_S)


def _queries(dag_id: str, run_id: str) -> list[Any]:
    from sqlalchemy import DateTime, Integer, String, Uuid, column, select, table

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
        "operator": String,
        "hostname": String,
        # An own JSON type of Airflow's: only the traceparent in it is looked for.
        "context_carrier": String,
    }
    queries = []
    for name, key in (("task_instance_history", "task_instance_id"), ("task_instance", "id")):
        rows = table(name, column(key, Uuid), *(column(c, kind) for c, kind in columns.items()))
        wanted = select(rows.c[key].label("id"), *(rows.c[c] for c in columns))
        queries.append(wanted.where(rows.c.dag_id == dag_id, rows.c.run_id == run_id))
    return queries


def _utc(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def dag_run_signals(frame: Frame, records: Records, service: str, env: str) -> Batch:
    """
    Return the span of a DAG run and one for each of its tries.

    Args:
        frame: as `scheduler.dag_run_ended` sends it.
        records: of Airflow.
        service: of the spans.
        env: deployment environment.
    """
    dag_id, run_id = frame["dag_id"], frame["run_id"]
    place = parse_traceparent(frame["traceparent"]) or TraceParent(
        derive_trace_id(schema.DAG_RUN, dag_id, run_id), derive_span_id(schema.DAG_RUN, dag_id, run_id)
    )
    tries = [row for row in records.tries(dag_id, run_id) if _belongs(row, place.trace_id)]
    spans = [_dag_run_span(frame, place, service)]
    spans += [_try_span(row, place, service) for row in tries]
    return Batch(service, "", env, f"{dag_id}-{run_id}", spans=tuple(spans))


def _belongs(row: dict[str, Any], trace_id: int) -> bool:
    """Whether a try ran, has ended, and is in this trace: a cleared DAG run has tries of earlier traces."""
    if not row["try_number"] or not row["start_date"] or not row["end_date"]:
        return False
    found = _TRACEPARENT.search(str(row["context_carrier"]))
    carried = parse_traceparent(found[0]) if found else None
    return carried is None or carried.trace_id == trace_id


def _dag_run_span(frame: Frame, place: TraceParent, service: str) -> Span:
    end_ns = frame["end_ns"]
    failed = frame["state"] != "success"
    return Span(
        operation=schema.DAG_RUN,
        resource=frame["dag_id"],
        service=service,
        version="",
        trace_id=place.trace_id,
        span_id=place.span_id,
        parent_id=None,
        start_ns=min(frame["begin_ns"] or end_ns, end_ns),
        end_ns=end_ns,
        attributes={
            schema.DAG_ID: frame["dag_id"],
            schema.DAG_RUN_ID: frame["run_id"],
            schema.DAG_RUN_STATE: frame["state"],
            schema.DAG_RUN_TYPE: frame["run_type"],
        },
        error=Error("DagRunFailed", f"DAG run {frame['run_id']} ended as {frame['state']}") if failed else None,
    )


def _try_span(row: dict[str, Any], place: TraceParent, service: str) -> Span:
    state = str(row["state"] or "none")
    attributes: dict[str, Attribute] = {
        schema.DAG_ID: row["dag_id"],
        schema.TASK_ID: row["task_id"],
        schema.DAG_RUN_ID: row["run_id"],
        schema.TRY_NUMBER: row["try_number"],
        schema.MAP_INDEX: row["map_index"],
        schema.TASK_STATE: state,
        schema.TASK_INSTANCE_ID: str(row["id"]),
        schema.OPERATOR: row["operator"] or "",
        schema.HOST_NAME: row["hostname"] or "",
    }
    start_ns, end_ns = (int(row[name].timestamp() * 1e9) for name in ("start_date", "end_date"))
    error = None if state in _FINISHED_OK else Error("TaskFailed", f"try {row['try_number']} ended as {state}")
    return Span(
        operation=schema.TASK,
        resource=f"{row['dag_id']}.{row['task_id']}",
        service=service,
        version="",
        trace_id=place.trace_id,
        span_id=derive_span_id(schema.TASK, row["id"]),
        parent_id=place.span_id,
        start_ns=start_ns,
        end_ns=max(start_ns, end_ns),
        attributes={name: value for name, value in attributes.items() if value != ""},
        error=error,
    )
