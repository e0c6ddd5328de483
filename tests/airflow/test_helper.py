"""The helper's reading of Airflow's records, on a real database with a history of tries."""

from __future__ import annotations

import json
import logging
import socket
import sqlite3
import threading
import time
from contextlib import closing
from datetime import datetime, timedelta

import pytest
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, task

from batch_observability.airflow import helper, records
from batch_observability.airflow.dag_run_spans import dag_run_signals
from batch_observability.airflow.helper import help_scheduler
from batch_observability.airflow.records import Records
from batch_observability.config import load
from tests.airflow import fakes
from tests.airflow.spooled import DAG_RUN, TASK, spans
from tests.ledger.runs import started
from tests.live.processes import wait_until
from tests.sidecar.ledger_rows import ledger


@pytest.fixture
def ended(run_dag, monkeypatch):
    """A DAG run that has ended: one task with two tries, a mapped one, and one that was skipped without a process."""
    monkeypatch.setenv("BATCHOBS_DAG_RUN_SPANS", "false")
    defaults = {"retries": 1, "retry_delay": timedelta(0)}
    with DAG("recorded", start_date=datetime(2024, 1, 1), schedule=None, default_args=defaults) as dag:

        @task
        def flaky(ti=None):
            if ti.try_number == 1:
                raise RuntimeError("no")

        @task
        def mapped(n):
            return n

        @task.branch
        def choose():
            return "taken"

        flaky()
        mapped.expand(n=[1, 2])
        nothing = [PythonOperator(task_id=name, python_callable=print) for name in ("taken", "passed_over")]
        choose() >> nothing
    return run_dag(dag)


@pytest.fixture
def change(database):
    """Executes SQL on Airflow's database, as another process would."""

    def execute(sql, *values):
        with closing(sqlite3.connect(database.removeprefix("sqlite:///"), timeout=20)) as connection, connection:
            return connection.execute(sql, values).fetchall()

    return execute


def frame(dag_run, **values):
    return {
        "t": "dag_run",
        "dag_id": dag_run.dag_id,
        "run_id": dag_run.run_id,
        "state": "success",
        "run_type": "manual",
        "traceparent": dag_run.context_carrier["traceparent"],
        "begin_ns": 1,
        "end_ns": time.time_ns(),
        **values,
    }


def signals(dag_run, database, **values):
    rows = Records(database).tries(dag_run.dag_id, dag_run.run_id)
    return dag_run_signals(frame(dag_run, **values), rows, "airflow", "test")


def by_place(batch):
    return {
        (span.attributes["airflow.task_id"], span.attributes["airflow.task_instance.map_index"], number): span
        for span in batch.spans
        if (number := span.attributes.get("airflow.task_instance.try_number"))
    }


def test_every_try_that_ran_is_one_span(ended, database):
    batch = signals(ended, database)
    found = by_place(batch)
    assert set(found) == {
        ("flaky", -1, 1),
        ("flaky", -1, 2),
        ("mapped", 0, 1),
        ("mapped", 1, 1),
        ("choose", -1, 1),
        ("taken", -1, 1),
    }
    assert len(batch.spans) == len(found) + 1
    assert len({span.span_id for span in batch.spans}) == len(batch.spans)
    root, *tries = batch.spans
    assert {span.parent_id for span in tries} == {root.span_id}
    assert {span.trace_id for span in tries} == {root.trace_id}
    assert found["flaky", -1, 1].error
    assert found["flaky", -1, 2].error is None
    for span in tries:
        assert span.start_ns <= span.end_ns <= time.time_ns()
        assert time.time_ns() - span.start_ns < 300e9, "a date without a zone was not taken for UTC"
    assert found["choose", -1, 1].attributes["airflow.operator"] == "_BranchPythonDecoratedOperator"


def test_tries_of_before_a_clear_are_in_another_trace_and_left_out(ended, database, change):
    change(
        "UPDATE task_instance_history SET context_carrier = ? WHERE dag_id = 'recorded' AND run_id = ?",
        json.dumps({"traceparent": fakes.TRACEPARENT}),
        ended.run_id,
    )
    assert ("flaky", -1, 1) not in by_place(signals(ended, database))
    assert ("flaky", -1, 2) in by_place(signals(ended, database))


def test_it_waits_until_the_end_is_committed(ended, database, change):
    change("UPDATE dag_run SET state = 'running' WHERE run_id = ?", ended.run_id)
    committed = []

    def commit():
        time.sleep(0.5)
        committed.append(time.monotonic())
        change("UPDATE dag_run SET state = 'success' WHERE run_id = ?", ended.run_id)

    thread = threading.Thread(target=commit)
    thread.start()
    batch = signals(ended, database)
    assert committed
    assert committed[0] < time.monotonic()
    thread.join()
    assert len(by_place(batch)) == 6


def test_it_does_not_wait_for_ever(ended, database, change, monkeypatch):
    monkeypatch.setattr(records, "_COMMITTED_WITHIN_S", 0.3)
    change("UPDATE dag_run SET state = 'running' WHERE run_id = ?", ended.run_id)
    assert len(by_place(signals(ended, database))) == 6


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////nonexistent/hunter2/airflow.db",
        "nodialect://airflow:hunter2@127.0.0.1:1/airflow",
    ],
)
def test_without_a_database_there_is_still_the_dag_run_and_one_warning_without_its_url(ended, url, caplog):
    batch = signals(ended, url, state="failed")
    (span,) = batch.spans
    assert (span.operation, span.resource) == (DAG_RUN, "recorded")
    assert span.error.type == "DagRunFailed"
    (record,) = (record for record in caplog.records if record.name.startswith("batch_observability"))
    assert record.levelno == logging.WARNING
    assert "recorded" in record.getMessage()
    assert "hunter2" not in caplog.text
    assert "\n" not in record.getMessage()


def test_without_a_traceparent_the_ids_derive_from_the_dag_run(ended, database):
    first, second = (signals(ended, "sqlite:////nonexistent/a.db", traceparent=None) for _ in range(2))
    assert first.spans[0].trace_id == second.spans[0].trace_id != 0
    assert first.spans[0].span_id == second.spans[0].span_id != 0


# --- As a process of the scheduler ----------------------------------------------------------------------------------


def hello(state, database, **values):
    """Return the first frame of a scheduler that leaves the second layer to others."""
    settings = load({"BATCHOBS_STATE_DIR": str(state), "BATCHOBS_EXPORT": "spool"}).as_frame()
    known = {"database": database, "path": [], "env": "test", "hosts": ["here"], "airflow_tracing": False}
    return {"t": "helper", "settings": settings, **known, "reconciles": False, **values}


def serve(*frames):
    """Let a helper serve a scheduler that sends these frames and is gone."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for each in frames:
            ours.sendall(json.dumps(each).encode() + b"\n")
        ours.shutdown(socket.SHUT_WR)
        help_scheduler(theirs)


def test_it_serves_a_scheduler_until_that_is_gone(ended, database, state, own_logger):
    other = frame(ended, run_id="other", dag_id="other")
    serve(hello(state, database), {"t": "unknown"}, frame(ended), other)
    assert {span.resource for span in spans(state, DAG_RUN)} == {"recorded", "other"}
    assert len(spans(state, TASK)) == 6


def test_with_airflows_own_tracing_it_sends_no_spans(ended, database, state, own_logger):
    serve(hello(state, database, airflow_tracing=True), frame(ended))
    assert spans(state) == []


def test_a_frame_that_breaks_does_not_keep_the_next_one(ended, database, state, own_logger):
    broken = {"t": "dag_run"}, {"t": "verdict", "outcome": "lost"}
    serve(hello(state, database), *broken, frame(ended))
    assert len(spans(state, DAG_RUN)) == 1
    log = (state / "logs" / "observer.log").read_text("utf-8")
    assert "dag_run of None is not told" in log
    assert "verdict of None is not told" in log


def test_it_does_nothing_for_somebody_who_is_no_scheduler(state):
    serve({"t": "start"})
    assert not state.exists()


def verdict(**of):
    return {"t": "verdict", "outcome": "cancelled", "reason": "marked failed by a user", "time_ns": 1, **of}


def test_what_somebody_said_of_a_run_is_in_the_ledger(database, state, own_logger):
    known = ledger(state)
    known.apply(started("run-1", dag_id="nightly", dag_run_id="manual__1"))
    known.apply(started("run-2", dag_id="nightly", dag_run_id="manual__2"))
    of_dag_run = {**verdict(dag_id="nightly", dag_run_id="manual__2"), "outcome": "timed_out"}
    serve(hello(state, database), verdict(run_id="run-1"), of_dag_run)
    verdicts = {one.run.run_id: known.verdict(one.run.run_id) for one in known.open_runs("airflow")}
    said = {run_id: (verdict.outcome, verdict.reason) for run_id, verdict in verdicts.items()}
    assert said == {
        "run-1": ("cancelled", "marked failed by a user"),
        "run-2": ("timed_out", "marked failed by a user"),
    }


OF_DAG_RUN = {"dag_id": "nightly", "dag_run_id": "scheduled__1"}


def test_what_was_said_of_a_run_that_is_not_in_the_ledger_yet_is_kept_for_it(database, state, own_logger):
    serve(hello(state, database), verdict(run_id="run-1"))
    known = ledger(state)
    known.apply(started("run-1"))
    assert known.verdict("run-1").outcome == "cancelled"


def test_what_was_said_of_a_dag_run_is_said_again_for_runs_that_have_just_begun(
    database, state, own_logger, monkeypatch
):
    monkeypatch.setattr(helper, "_AGAIN_AFTER_S", 0.5)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        serving = threading.Thread(target=help_scheduler, args=(theirs,))
        serving.start()
        for each in (hello(state, database), verdict(**OF_DAG_RUN), {"t": "unknown"}):
            ours.sendall(json.dumps(each).encode() + b"\n")
        known = ledger(state)
        known.apply(started("run-1"))
        wait_until(lambda: known.verdict("run-1"), "it is in the ledger", 20)
        ours.shutdown(socket.SHUT_WR)
        serving.join(20)
    assert not serving.is_alive()


def test_what_was_to_be_said_again_is_said_before_it_leaves(database, state, own_logger, monkeypatch):
    begun = started("run-1")

    class Late(helper.Delivery):
        """A run whose row comes with the second word."""

        def record(self, name, change):
            report = super().record(name, change)
            self.ledger.apply(begun)
            return report

    monkeypatch.setattr(helper, "Delivery", Late)
    serve(hello(state, database), verdict(**OF_DAG_RUN))
    assert ledger(state).verdict("run-1").outcome == "cancelled"
