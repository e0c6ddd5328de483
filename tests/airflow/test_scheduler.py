"""The scheduler's side: an ended DAG run goes to a helper process, which is there once and is not insisted on."""

from __future__ import annotations

import inspect
import os
import socket
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import psutil
import pytest
from airflow.sdk import DagRunState

from batch_observability.airflow import listener, scheduler
from batch_observability.airflow.scheduler import _Helper
from batch_observability.channel import Channel, FrameReader
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
    failed = dag_run(state=DagRunState.FAILED, context_carrier=None, end_date=None)
    listener.on_dag_run_failed(dag_run=failed, msg="task_failure")
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
def test_where_there_are_no_spans_to_send_there_is_a_helper_all_the_same(database, state, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    listener.on_dag_run_success(dag_run=dag_run())
    _Helper.channel.close()
    wait_until(lambda: not helpers(state), "the helper has done all", 20, lambda: helpers(state))
    assert spans(state) == []


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


# --- What it is told ------------------------------------------------------------------------------------------------


@pytest.fixture
def heard():
    """Return a function for the frames that a helper would have got by now."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    _Helper.channel, _Helper.pid = Channel(ours), os.getpid()
    reader = FrameReader()

    def frames():
        with suppress(BlockingIOError):
            return list(reader.feed(theirs.recv(1 << 16)))
        return []

    yield frames
    theirs.close()


@pytest.mark.parametrize("hook", ["success", "skipped", "failed"])
def test_a_state_that_a_person_has_set_is_a_verdict_on_the_run(heard, hook):
    row = fakes.TaskInstance()
    error = {"error": None} if hook == "failed" else {}
    before = time.time_ns()
    getattr(listener, f"on_task_instance_{hook}")(previous_state=None, task_instance=row, **error)
    (frame,) = heard()
    assert before <= frame.pop("time_ns") <= time.time_ns()
    assert frame == {
        "t": "verdict",
        "outcome": "cancelled",
        "reason": f"marked {hook} by a user",
        "run_id": str(row.id),
    }


HEARTBEAT = "Task did not emit heartbeat within time limit (300 seconds) and will be terminated. See https://airflow"
MISMATCH = "Executor LocalExecutor reported that the task instance finished with state failed,\nbut   it is running"


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (f"{{'Message': '{HEARTBEAT}'}}", "lost", f"{{'Message': '{HEARTBEAT}'}}"),
        (MISMATCH, "killed", MISMATCH.replace("\n", " ").replace("   ", " ")),
        ("x" * 5000, "killed", "x" * 1000),
    ],
    ids=["heartbeat", "executor", "long"],
)
def test_a_task_that_the_scheduler_gave_up_is_a_verdict_in_one_line(heard, error, outcome, reason):
    row = fakes.TaskInstance()
    listener.on_task_instance_failed(previous_state=fakes.RUNNING, task_instance=row, error=error)
    (frame,) = heard()
    assert (frame["outcome"], frame["reason"], frame["run_id"]) == (outcome, reason, str(row.id))


def test_of_a_try_that_will_be_retried_nothing_is_said_for_its_id_is_the_next_ones_by_then(heard):
    """Airflow writes the try to its history, and gives the row a new id, before it calls the hook."""
    row = fakes.TaskInstance(state="up_for_retry")
    listener.on_task_instance_failed(previous_state=fakes.RUNNING, task_instance=row, error=HEARTBEAT)
    assert heard() == []


def test_a_dag_run_that_took_too_long_is_a_verdict_on_all_of_its_runs(heard):
    listener.on_dag_run_failed(dag_run=dag_run(state=DagRunState.FAILED), msg="timed_out")
    verdict, ended = heard()
    assert (verdict["t"], verdict["outcome"]) == ("verdict", "timed_out")
    assert (verdict["dag_id"], verdict["dag_run_id"]) == ("faked", "manual__1")
    assert verdict["reason"] == "the DAG run took longer than its dagrun_timeout"
    assert (ended["t"], ended["state"]) == ("dag_run", "failed")


@pytest.mark.parametrize("message", ["task_failure", "all_tasks_deadlocked", ""])
def test_a_dag_run_that_failed_otherwise_is_no_verdict(heard, message):
    listener.on_dag_run_failed(dag_run=dag_run(state=DagRunState.FAILED), msg=message)
    assert [frame["t"] for frame in heard()] == ["dag_run"]


@pytest.mark.parametrize(("command", "reconciles"), [("scheduler", True), ("standalone", True), ("api-server", False)])
def test_only_a_schedulers_helper_is_the_second_layer(database, monkeypatch, command, reconciles):
    held = []
    monkeypatch.setattr(sys, "argv", ["airflow", command])
    monkeypatch.setattr(scheduler, "detach", lambda role, sock: held.append(sock.dup()))
    scheduler.start_helper()
    (frame,) = FrameReader().feed(held[0].recv(1 << 16))
    held[0].close()
    assert (frame["t"], frame["reconciles"], frame["database"]) == ("helper", reconciles, database)
    assert socket.gethostname() in frame["hosts"]


def test_airflow_still_gives_the_row_a_new_id_before_it_says_that_a_try_failed():
    """What the test above builds on; a release may change it."""
    from airflow.models.taskinstance import TaskInstance

    source = inspect.getsource(TaskInstance.fetch_handle_failure_context)
    assert 0 < source.index("prepare_db_for_next_try") < source.index("on_task_instance_failed")
