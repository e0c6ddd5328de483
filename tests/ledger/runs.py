"""Runs and what is told of them, for the tests of the ledger."""

from __future__ import annotations

import time
from datetime import timedelta

from batch_observability.ledger.records import (
    Declared,
    Finished,
    Measurement,
    Paused,
    Promised,
    Recovered,
    Run,
    Stage,
    Started,
    Verdict,
)

MODEL = {
    "name": "churn",
    "version": "1.2",
    "service": "scoring",
    "owner": "growth",
    "tier": "high",
    "runbook": "",
    "objectives": {"finish_within": "20m"},
}
SECOND_NS = 10**9


def ago_ns(age: timedelta) -> int:
    return time.time_ns() - age // timedelta(microseconds=1) * 1000


def run(run_id="run-1", **values):
    """Return a first try of task `score` of the DAG `nightly`."""
    known = {
        "source": "airflow",
        "resource": "nightly.score",
        "env": "prod",
        "model": MODEL,
        "dag_id": "nightly",
        "task_id": "score",
        "dag_run_id": "scheduled__1",
        "try_number": 1,
        "trace_id": 2**128 - 1,
        "span_id": 2**64 - 1,
        "host": "worker-1",
        "pid": 4242,
        "due_ns": None,
        "start_ns": time.time_ns(),
    }
    return Run(run_id=run_id, **{**known, **values})


def started(run_id="run-1", context=None, **values):
    return Started(run=run(run_id, **values), context=context or {})


def paused(run_id="run-1", state="{}", paused_ns=7, **values):
    return Paused(run=run(run_id, **values), state=state, paused_ns=paused_ns)


def verdict(outcome="timed_out", **values):
    return Verdict(**{"outcome": outcome, "reason": "the DAG run timed out", "time_ns": 9, **values})


def finished(run_id="run-1", outcome="success", token="token-1", closed_by="sidecar", of=None, **values):
    of = of or run(run_id)
    known = {
        "end_ns": of.start_ns + SECOND_NS,
        "stages": (Stage(span_id=2**64 - 2, parent_id=2**64 - 1, name="load", start_ns=1, end_ns=2, error_type="E"),),
        "measurements": (Measurement(name="auc", value=0.5, unit="ratio", time_ns=3),),
    }
    return Finished(run=of, outcome=outcome, token=token, closed_by=closed_by, **{**known, **values})


def promised(key="key-1", state="breached", token="token-1", **values):
    """Return that the task `score` of the DAG `nightly` finishes too late."""
    known = {
        "objective": "finish_within",
        "promise": "20m",
        "model": MODEL,
        "source": "airflow",
        "env": "prod",
        "resource": "nightly.score",
        "dag_id": "nightly",
        "task_id": "score",
        "dag_run_id": "scheduled__1",
        "time_ns": 100,
        "told_by": "sidecar",
    }
    return Promised(key=key, state=state, token=token, **{**known, **values})


def recovered(**values):
    known = {"model_name": "churn", "objective": "finish_within", "before_ns": 0, "time_ns": 900, "token": "token-1"}
    return Recovered(**{**known, **values})


def declared(**values):
    known = {"dag_id": "nightly", "task_id": "score", "source": "airflow", "model": MODEL, "since_ns": 50}
    return Declared(**{**known, **values})
