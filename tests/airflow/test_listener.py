"""The hooks with faked task instances: what they must not look at, do twice, or let out."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG, Asset, BaseOperator, TaskInstanceState
from airflow.sdk.api.datamodels._generated import AssetEventDagRunReference
from airflow.sdk.exceptions import AirflowSkipException
from opentelemetry.sdk.trace import TracerProvider

from batch_observability import BatchModel, BatchModelMixin, current_run
from batch_observability.airflow import listener, observed
from batch_observability.sidecar import spawn
from tests.airflow import fakes
from tests.airflow.spooled import RUN, STAGE, points, spans

MODEL = BatchModel("churn-score", owner="team-risk")


class Score(BatchModelMixin, BaseOperator):
    model = MODEL


@pytest.fixture
def score():
    with DAG("faked", start_date=datetime(2024, 1, 1), schedule=None):
        return Score(task_id="score")


@pytest.fixture
def no_processes(monkeypatch):
    """Nothing may be started."""

    def refuse(*arguments, **named):
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr(spawn, "detach", refuse)


@pytest.fixture(autouse=True)
def nothing_stays_open():
    yield
    observed.pause()


def begin(instance):
    listener.on_task_instance_running(task_instance=instance)


def succeed(instance):
    listener.on_task_instance_success(previous_state=fakes.RUNNING, task_instance=instance)


def skip(instance):
    listener.on_task_instance_skipped(previous_state=fakes.RUNNING, task_instance=instance)


def fail(instance, error):
    listener.on_task_instance_failed(previous_state=fakes.RUNNING, task_instance=instance, error=error)


def test_airflow_calls_these_hooks():
    from airflow.listeners.listener import get_listener_manager

    assert listener in get_listener_manager().pm.get_plugins()


def test_rows_of_the_database_are_not_looked_at(no_processes):
    row = fakes.TaskInstance()
    listener.on_task_instance_running(task_instance=row)
    succeed(row)
    skip(row)
    fail(row, None)
    assert not current_run().active


def test_for_an_unobserved_task_nothing_is_started_or_written(no_processes, state):
    instance = fakes.task_instance(BaseOperator(task_id="plain"))
    begin(instance)
    succeed(instance)
    listener.before_stopping(component=SimpleNamespace())
    assert not current_run().active
    assert not state.exists()


def test_hooks_that_are_called_twice_make_one_run(score, state):
    instance = fakes.task_instance(score)
    begin(instance)
    run = current_run()
    begin(instance)
    assert current_run() is run
    succeed(instance)
    (span,) = spans(state, RUN)
    assert (span.outcome, span.attributes["batch_model.run_id"]) == ("success", str(instance.id))
    assert not current_run().active


def test_of_two_ends_the_first_one_counts(score, state):
    instance = fakes.task_instance(score)
    begin(instance)
    succeed(instance)
    succeed(instance)
    fail(instance, RuntimeError("late"))
    assert [span.outcome for span in spans(state, RUN)] == ["success"]


@pytest.mark.parametrize(
    ("state_of_task", "outcome"),
    [(TaskInstanceState.UP_FOR_RETRY, "retrying"), (TaskInstanceState.FAILED, "failed"), ("up_for_retry", "retrying")],
)
def test_a_failure_that_will_be_retried_is_told_apart(score, state, state_of_task, outcome):
    instance = fakes.task_instance(score)
    begin(instance)
    instance.state = state_of_task
    fail(instance, RuntimeError("no"))
    assert [span.outcome for span in spans(state, RUN)] == [outcome]


def test_an_error_may_be_a_text(score, state):
    instance = fakes.task_instance(score, state=TaskInstanceState.FAILED)
    begin(instance)
    fail(instance, "the pod is gone")
    (span,) = spans(state, RUN)
    assert (span.error, span.attributes["error.message"]) == ("Error", "the pod is gone")


def test_the_run_takes_its_place_in_airflows_trace(score, state):
    instance = fakes.task_instance(score)
    begin(instance)
    assert current_run().trace_id == f"{fakes.TRACE_ID:032x}"
    succeed(instance)
    (span,) = spans(state, RUN)
    assert span.trace_id == f"{fakes.TRACE_ID:032x}"
    assert span.parent


@pytest.mark.parametrize(
    ("flags", "parent"),
    [("01", "worker"), ("01", "e653e4f7e89aec43"), ("00", "")],
    ids=["recorded", "no worker span", "not sampled"],
)
def test_with_airflows_own_tracing_the_run_hangs_under_its_span(score, state, monkeypatch, flags, parent):
    monkeypatch.setenv("AIRFLOW__TRACES__OTEL_ON", "True")
    carrier = {"traceparent": f"00-{fakes.TRACE_ID:032x}-e653e4f7e89aec43-{flags}"}
    instance = fakes.task_instance(score, context_carrier=carrier)
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span(f"{parent}.score") as span:
        begin(instance)
        succeed(instance)
    (run,) = spans(state, RUN)
    assert run.trace_id == f"{fakes.TRACE_ID:032x}"
    assert run.parent == (f"{span.get_span_context().span_id:016x}" if parent == "worker" else parent)


def test_tries_and_map_indexes_have_spans_of_their_own(score, state):
    places = [(1, -1), (2, -1), (1, 0), (1, 1)]
    for try_number, map_index in places:
        instance = fakes.task_instance(score, try_number=try_number, map_index=map_index)
        begin(instance)
        succeed(instance)
    runs = {(run.try_number, run.attributes["airflow.task_instance.map_index"]): run for run in spans(state, RUN)}
    assert set(runs) == set(places)
    assert len({run.span_id for run in runs.values()}) == len(places)
    assert runs[2, -1].links == [runs[1, -1].span_id]


def test_a_try_after_a_clear_does_not_link_to_another_trace(score, state):
    instance = fakes.task_instance(score, try_number=2, told=fakes.server(dag_run={"clear_number": 1}))
    begin(instance)
    succeed(instance)
    (run,) = spans(state, RUN)
    assert run.links == []


def test_the_start_delay_is_that_of_the_first_try_only(score, state):
    due = datetime.now(UTC) - timedelta(minutes=5)
    for try_number in (1, 2):
        told = fakes.server(dag_run={"run_after": due})
        instance = fakes.task_instance(score, try_number=try_number, told=told)
        begin(instance)
        succeed(instance)
    names = [name for name, _ in points(state)]
    assert names.count("batch_model.run.start_delay") == 1
    assert names.count("batch_model.run.finished") == 2


def test_a_deferred_try_goes_on_in_the_next_process(score, state):
    instance = fakes.task_instance(score)
    begin(instance)
    with current_run().stage("ask"):
        current_run().rows(read=1)
    listener.before_stopping(component=type("TaskRunnerMarker", (), {})())
    assert not current_run().active
    assert spans(state) == []

    began = datetime.now(UTC) - timedelta(seconds=5)
    told = fakes.server(next_method="go_on")
    resumed = fakes.task_instance(score, id=instance.id, told=told, start_date=began)
    begin(resumed)
    with current_run().stage("answer"):
        current_run().rows(read=2)
    succeed(resumed)
    (run,) = spans(state, RUN)
    assert (run.outcome, run.attributes["batch_model.rows.read"]) == ("success", 3)
    assert {stage.resource for stage in spans(state, STAGE)} == {"phase", "waiting", "ask", "answer"}
    assert not list((state / "runs").iterdir())


def test_only_the_task_runner_pauses_a_run(score, state):
    instance = fakes.task_instance(score)
    begin(instance)
    listener.before_stopping(component=SimpleNamespace())
    assert current_run().run_id == str(instance.id)
    succeed(instance)
    assert len(spans(state, RUN)) == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(None, "success"), (ValueError("no"), "failed"), (AirflowSkipException("not today"), "skipped")],
    ids=["success", "failed", "skipped"],
)
def test_a_listener_of_somebody_else_that_raises_loses_no_run(run_dag, state, error, outcome):
    # Airflow then calls no other listener for this hook.
    from airflow.listeners.listener import get_listener_manager
    from airflow.sdk.listener import get_listener_manager as get_task_listener_manager

    class Throwing:
        @listener.hookimpl
        def on_task_instance_success(self, task_instance):
            raise RuntimeError("of somebody else")

        on_task_instance_failed = on_task_instance_skipped = on_task_instance_success

    class Work(Score):
        def execute(self, context):
            if error:
                raise error

    with DAG("thrown_at", start_date=datetime(2024, 1, 1), schedule=None) as dag:
        Work(task_id="score")
    throwing, managers = Throwing(), {id(m): m for m in (get_listener_manager(), get_task_listener_manager())}
    for manager in managers.values():
        manager.add_listener(throwing)
    try:
        run_dag(dag)
    finally:
        for manager in managers.values():
            manager.pm.unregister(throwing)
    (run,) = spans(state, RUN)
    assert (run.outcome, run.error) == (outcome, "ValueError" if outcome == "failed" else "")


def test_a_forked_child_has_no_run_to_end(score, state, monkeypatch):
    instance = fakes.task_instance(score)
    begin(instance)
    child = os.getpid() + 1
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: child)
        listener.before_stopping(component=type("TaskRunnerMarker", (), {})())
    assert current_run().active
    succeed(instance)
    assert [span.outcome for span in spans(state, RUN)] == ["success"]


def test_without_a_shell_the_run_is_observed_from_a_thread(score, state, monkeypatch, caplog):
    monkeypatch.setattr(spawn, "_SHELL", "/nonexistent/sh")
    instance = fakes.task_instance(score)
    begin(instance)
    with current_run().stage("load"):
        current_run().rows(read=7)
    succeed(instance)
    (run,) = spans(state, RUN)
    assert (run.outcome, run.attributes["batch_model.rows.read"]) == ("success", 7)
    assert "observing from a thread of the task" in caplog.text


def test_a_run_that_makes_an_asset_is_announced_to_its_consumers(run_dag, state):
    asset, seen = Asset("scores"), []

    class Producer(Score):
        def execute(self, context):
            context["outlet_events"][asset].extra["rows"] = 7
            seen.append(dict(context["outlet_events"][asset].extra))

    with DAG("making", start_date=datetime(2024, 1, 1), schedule=None):
        producer = Producer(task_id="produce", outlets=[asset])
    assert run_dag(producer.dag).state == "success"
    (made,) = spans(state, RUN)
    (extra,) = seen
    assert extra["rows"] == 7
    assert extra["traceparent"].split("-")[1:3] == [made.trace_id, made.span_id]

    consumed = [{"traceparent": extra["traceparent"]}, {"traceparent": "nonsense"}, {}]
    events = [AssetEventDagRunReference.model_construct(extra=extra) for extra in consumed]
    consumer = fakes.task_instance(
        Score(task_id="consume"), told=fakes.server(dag_run={"consumed_asset_events": events})
    )
    begin(consumer)
    succeed(consumer)
    (run,) = (span for span in spans(state, RUN) if span.task_id == "consume")
    assert run.links == [made.span_id]
