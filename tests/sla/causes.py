"""Models, subjects and causes for the tests of who tells what."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from batch_observability import SLA, schema
from batch_observability.ledger.records import Declared, Finished, Run
from batch_observability.sla.promises import NO_INSTANCE, Subject, slot_of
from batch_observability.sla.telling import Cause

if TYPE_CHECKING:
    from pathlib import Path

SECOND = 10**9
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
DUE = 1_780_293_600 * SECOND  # 2026-06-01 06:00 UTC
DUE_TEXT = "2026-06-01T06:00:00Z"
RUNBOOK = "https://wiki.example.com/churn"
# What a metric of a promise may be tagged with: a closed list, so that the number of series stays known.
TAGS = {*schema.TAGS, schema.TAG_OBJECTIVE}


def model(name: str = "churn", **promised: Any) -> dict[str, Any]:
    """Return a model as runs carry it."""
    sla = SLA(**promised)
    return {
        "name": name,
        "version": "3",
        "service": f"{name}-service",
        "owner": "team-risk",
        "tier": "1",
        "runbook": RUNBOOK,
        "objectives": sla.objectives(),
        "terms": sla.terms(),
    }


def place(dag_id: str = "nightly", due_ns: int = DUE, map_index: int = NO_INSTANCE) -> dict[str, Any]:
    """Return where and when a scheduled run of a task is."""
    return {
        "source": "airflow",
        "env": "prod",
        "resource": f"{dag_id}.score",
        "dag_id": dag_id,
        "task_id": "score",
        "map_index": map_index,
        "slot": slot_of("scheduled", due_ns, ""),
        "due_ns": due_ns,
    }


def subject(**values: Any) -> Subject:
    """Return a run that somebody triggered: of what is scheduled, the ledger asks since when it is known."""
    known = {**place(), "model": model(), "dag_run_id": "manual__1", "slot": "manual__1", "run_id": "run-1"}
    return Subject(**{**known, **values})


def cause(of: Subject, objective: str = "finish_within", **values: Any) -> Cause:
    """Return why a promise of a run is at risk or broken."""
    known = {
        "key": of.key(objective),
        "objective": objective,
        "promise": "20m",
        "moment_ns": DUE + HOUR,
        "deadline_ns": DUE + HOUR,
        "reason": "not finished, 5s late",
    }
    return Cause(**{**known, **values})


def declared(of: Subject, since_ns: int = DUE - DAY) -> Declared:
    """Return that a task is known as a batch model."""
    return Declared(dag_id=of.dag_id, task_id=of.task_id, source=of.source, model=of.model, since_ns=since_ns)


def run(of: Subject, run_id: str = "run-1", start_ns: int = DUE, **values: Any) -> Run:
    """Return a run of a subject."""
    names = ("source", "env", "resource", "model", "dag_id", "task_id", "dag_run_id", "map_index", "due_ns")
    known = {name: getattr(of, name) for name in names}
    return Run(**{**known, "run_id": run_id, "trace_id": 1, "span_id": 2, "start_ns": start_ns, **values})


def finished(of: Run, outcome: str = "success", end_ns: int | None = None, **values: Any) -> Finished:
    """Return that a run has ended, a minute later if nothing else is said."""
    end_ns = of.start_ns + MINUTE if end_ns is None else end_ns
    return Finished(run=of, end_ns=end_ns, outcome=outcome, token=f"end of {of.run_id}", closed_by="sidecar", **values)


@contextmanager
def write_locked(state: Path):
    """Hold the lock without which nothing can be written to a ledger; it can be read all the same."""
    with closing(sqlite3.connect(state / "ledger.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
