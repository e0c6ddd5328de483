"""The scheduler's side: an ended DAG run goes to a helper process, which is there once and is not insisted on."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import psutil
import pytest
from airflow.sdk import DagRunState

from batch_observability.airflow import listener, scheduler
from batch_observability.airflow.scheduler import _Helper
from tests.airflow import fakes
from tests.airflow.spooled import DAG_RUN, spans
from tests.live.processes import wait_until

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def dag_run(**values):
    known = {
        "dag_id": "faked",
        "run_id": "manual__1",
        "state": DagRunState.SUCCESS,
        "run_type": "manual",
        "context_carrier": {"traceparent": fakes.TRACEPARENT},
        "queued_at": BEGAN,
        "start_date": BEGAN + timedelta(seconds=1),
        "end_date": BEGAN + timedelta(seconds=9),
        **values,
    }
    return SimpleNamespace(**known)


def helpers(state):
    """Helper processes of this test: those that write to its folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("BATCHOBS_STATE_DIR") == str(state) and "helper" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE and "python" in process.name()]


def arrived(state, count=1):
    return wait_until(
        lambda: len(spans(state, DAG_RUN)) >= count and spans(state, DAG_RUN), f"{count} DAG-run spans", 60
    )


def test_an_ended_dag_run_becomes_a_span(database, state):
    listener.on_dag_run_success(dag_run=dag_run())
    (span,) = arrived(state)
    assert (span.resource, span.service, span.parent, span.error) == ("faked", "airflow", "", "")
    assert span.trace_id == f"{fakes.TRACE_ID:032x}"
    assert span.span_id == "e653e4f7e89aec43"
    assert (span.start_ns, span.end_ns) == (int(BEGAN.timestamp() * 1e9), int((BEGAN.timestamp() + 9) * 1e9))
    assert span.attributes["airflow.dag_run.run_type"] == "manual"


def test_a_failed_dag_run_is_an_error_span(database, state):
    listener.on_dag_run_failed(dag_run=dag_run(state=DagRunState.FAILED, context_carrier=None, end_date=None))
    (span,) = arrived(state)
    assert span.error == "DagRunFailed"
    assert span.attributes["error.message"] == "DAG run manual__1 ended as failed"
    assert span.trace_id != "0" * 32


def test_one_helper_serves_all_dag_runs(database, state):
    for number in range(3):
        listener.on_dag_run_success(dag_run=dag_run(run_id=f"manual__{number}"))
    arrived(state, 3)
    assert len(helpers(state)) == 1


def test_the_helper_leaves_with_its_scheduler(database, state):
    listener.on_dag_run_success(dag_run=dag_run())
    arrived(state)
    _Helper.channel.close()
    wait_until(lambda: not helpers(state), "the helper is gone", 20, lambda: helpers(state))


# The socket of the helper that died is left to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_helper_that_died_is_replaced_but_not_at_once(database, state, monkeypatch):
    listener.on_dag_run_success(dag_run=dag_run())
    arrived(state)
    (helper,) = helpers(state)
    helper.kill()
    helper.wait(20)
    # This one is lost, and tells that nobody listens.
    listener.on_dag_run_success(dag_run=dag_run(run_id="manual__2"))
    listener.on_dag_run_success(dag_run=dag_run(run_id="manual__3"))
    assert helpers(state) == []
    monkeypatch.setattr(_Helper, "started", _Helper.started - 61)
    listener.on_dag_run_success(dag_run=dag_run(run_id="manual__4"))
    run_ids = {span.attributes["airflow.dag_run.run_id"] for span in arrived(state, 2)}
    assert run_ids == {"manual__1", "manual__4"}


@pytest.mark.parametrize(
    ("variable", "value"), [("BATCHOBS_DAG_RUN_SPANS", "false"), ("AIRFLOW__TRACES__OTEL_ON", "True")]
)
def test_there_is_no_helper_where_it_has_nothing_to_do(database, state, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    listener.on_dag_run_success(dag_run=dag_run())
    listener.on_dag_run_success(dag_run=dag_run())
    assert _Helper.channel is None
    assert scheduler.start_helper() is None


@pytest.mark.parametrize(
    ("command", "component", "expected"),
    [
        (["airflow", "scheduler"], type("Job", (), {})(), True),
        (["airflow", "scheduler"], SimpleNamespace(), False),
        (["airflow", "triggerer"], type("Job", (), {})(), False),
        (["airflow", "dag-processor", "scheduler.py"], type("Job", (), {})(), False),
    ],
)
def test_the_helper_starts_with_the_scheduler_and_nobody_else(database, monkeypatch, command, component, expected):
    monkeypatch.setattr(sys, "argv", command)
    listener.on_starting(component=component)
    assert (_Helper.channel is not None) == expected
