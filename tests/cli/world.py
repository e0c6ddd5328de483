"""A host whose ledger is filled by changes, as runs fill it; and the command in this process, which is quicker."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from batch_observability import SLA, cli
from batch_observability.ledger.records import Declared, Finished
from batch_observability.ledger.store import Ledger
from batch_observability.objective import OBJECTIVES
from tests.cli.conftest import OURS
from tests.ledger.runs import finished, promised, run

SECOND = 10**9
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
MUTED = ("ddtrace.internal.writer", "datadog.dogstatsd", "opentelemetry.exporter")
NOBODY = "postgresql://me@127.0.0.1:1/runs"


def model(name="churn", owner="growth", **promised_: Any) -> dict[str, Any]:
    """Return a model as runs carry it."""
    sla = SLA(**promised_)
    of_sla = {"objectives": sla.objectives(), "terms": sla.terms()}
    return {"name": name, "version": "1", "service": name, "owner": owner, "tier": "1", "runbook": "", **of_sla}


def ended(of: Mapping[str, Any], ago_ns: int, outcome="success", kept=(), number=0, **values) -> Finished:
    """Return a run of a model that took a second and ended so long ago."""
    objectives = list(of["objectives"])
    mask = sum(1 << OBJECTIVES.index(name) for name in kept if name in objectives)
    name = f"{of['name']}-{ago_ns}-{number}"
    place = {"dag_id": of["name"], "resource": f"{of['name']}.score", "dag_run_id": name}
    of_run = run(name, model=dict(of), start_ns=time.time_ns() - ago_ns - SECOND, **place)
    return finished(of=of_run, outcome=outcome, kept=mask, token=name, stages=(), measurements=(), **values)


def broken(of: Mapping[str, Any], objective: str, ago_ns: int, **values):
    """Return that an objective of a model was broken so long ago."""
    place = {"dag_id": of["name"], "resource": f"{of['name']}.score"}
    key, promise = f"{objective}-{of['name']}-{ago_ns}", of["objectives"][objective]
    known = {"key": key, "token": key, "promise": promise, "time_ns": time.time_ns() - ago_ns, **place, **values}
    return promised(objective=objective, model=dict(of), **known)


def declared(of: Mapping[str, Any], **values) -> Declared:
    """Return that a task is a model, for ten days."""
    since_ns = time.time_ns() - 10 * DAY
    return Declared(
        dag_id=of["name"], task_id="score", source="airflow", model=dict(of), **{"since_ns": since_ns, **values}
    )


@pytest.fixture
def ledger(tmp_path):
    """The ledger of the host."""
    with closing(Ledger(f"sqlite:///{tmp_path / 'state' / 'ledger.db'}", 10)) as opened:
        opened.migrate()
        yield opened


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """Return a function that runs the command in this process; returns exit code, output and errors."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("BATCHOBS_EXPORT", "spool")
    muted = [logging.getLogger(name) for name in MUTED]
    before = [logger.propagate for logger in muted]

    def call(*arguments, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        try:
            code = cli.main(arguments)
        except SystemExit as ending:
            code = ending.code
        said = capsys.readouterr()
        return code, said.out, said.err

    yield call
    for logger, propagate in zip(muted, before, strict=True):
        logger.propagate = propagate


# What of Airflow's database is read; a real one is looked at by the tests of the scheduler's helper.
_AIRFLOW = """
CREATE TABLE dag (dag_id, bundle_name, relative_fileloc, timetable_summary, allowed_run_types, is_paused, is_stale,
    exceeds_max_non_backfill, next_dagrun, next_dagrun_create_after);
CREATE TABLE import_error (bundle_name, filename);
CREATE TABLE dag_run (dag_id, run_id, run_type, state, clear_number, run_after, queued_at, logical_date, end_date);
CREATE TABLE task_instance (dag_id, run_id, task_id, map_index, id, state, try_number, start_date, next_method);
CREATE TABLE task_instance_history (dag_id, run_id, task_id, map_index, start_date);
CREATE TABLE task_reschedule (ti_id, start_date);
"""


def airflow_database(path, dag_id, due_ns):
    """Make an Airflow's database with one paused DAG that is due; return its URL."""
    due = datetime.fromtimestamp(due_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    row = (dag_id, "dags", f"{dag_id}.py", "0 6 * * *", None, 1, 0, 0, due, due)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(_AIRFLOW)
        connection.execute(f"INSERT INTO dag VALUES ({', '.join('?' * len(row))})", row)
    return f"sqlite:///{path}"
