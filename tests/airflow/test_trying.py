"""How tries end in `dag.test()`, and the trace that they make: one attempt, one outcome, one run span."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.log import mask_secret

from batch_observability import BatchModel, BatchModelMixin, current_run
from tests.airflow.spooled import DAG_RUN, RUN, STAGE, TASK, spans
from tests.airflow.triggers import AtOnce
from tests.live.processes import wait_until

MODEL = BatchModel("churn-score", owner="team-risk")


def _dag(**default_args):
    default_args = {"retry_delay": timedelta(0), "model": MODEL, **default_args}
    return DAG("trying", start_date=datetime(2024, 1, 1), schedule=None, default_args=default_args)


def _trace(state):
    """The spans of a DAG run, once the helper has sent its own."""
    wait_until(lambda: spans(state, DAG_RUN), "the DAG-run span is in the spool", 60, lambda: spans(state))
    return spans(state)


class Patient(BatchModelMixin, BaseOperator):
    def execute(self, context):
        with self.batch.stage("ask"):
            self.batch.rows(read=1)
        self.batch.measure("asked", 1)
        self.defer(trigger=AtOnce(), method_name="go_on")

    def go_on(self, context, event=None):
        with self.batch.stage("answer"):
            self.batch.rows(read=2)
        if self.task_id == "unlucky":
            raise RuntimeError("the answer is no")


class Poking(BatchModelMixin, BaseSensorOperator):
    pokes = 0

    def poke(self, context):
        type(self).pokes += 1
        with self.batch.stage(f"poke {self.pokes}"):
            self.batch.rows(read=1)
        return self.pokes == 3


class Templated(BatchModelMixin, BaseOperator):
    template_fields = ("text",)

    def __init__(self, text, **kwargs):
        super().__init__(**kwargs)
        self.text = text

    def execute(self, context):
        raise AssertionError("is never reached")


def test_a_dag_run_is_one_trace_with_its_tries_below_it(run_dag, state):
    with _dag() as dag:

        @task.batch_model
        def observed():
            with current_run().stage("load"), current_run().stage("parse"):
                pass

        @task
        def unobserved():
            return 1

        observed() >> unobserved()
    dag_run = run_dag(dag)
    trace = _trace(state)
    assert len({span.trace_id for span in trace}) == 1
    by_name = {(span.name, span.resource): span for span in trace}
    assert len(by_name) == len(trace) == 6
    root = by_name[DAG_RUN, "trying"]
    assert root.parent == ""
    assert root.attributes["airflow.dag_run.run_id"] == dag_run.run_id
    assert root.attributes["airflow.dag_run.state"] == "success"
    tasks = {name: by_name[TASK, f"trying.{name}"] for name in ("observed", "unobserved")}
    assert {span.parent for span in tasks.values()} == {root.span_id}
    assert by_name[RUN, "trying.observed"].parent == tasks["observed"].span_id
    assert by_name[STAGE, "load"].parent == by_name[RUN, "trying.observed"].span_id
    assert by_name[STAGE, "parse"].parent == by_name[STAGE, "load"].span_id
    assert dag_run.context_carrier["traceparent"].split("-")[1:3] == [root.trace_id, root.span_id]


def test_a_retry_is_a_run_of_its_own_that_links_to_the_one_before(run_dag, state):
    with _dag(retries=1) as dag:

        @task.batch_model
        def flaky(ti=None):
            with current_run().stage("load"):
                if ti.try_number == 1:
                    raise RuntimeError("the first try fails")

        flaky()
    assert run_dag(dag).state == "success"
    trace = _trace(state)
    first, second = (span for span in trace if span.name == RUN)
    assert (first.try_number, first.outcome, first.error, first.stage) == (1, "retrying", "RuntimeError", "load")
    assert (second.try_number, second.outcome, second.error) == (2, "success", "")
    assert first.links == []
    assert second.links == [first.span_id]
    assert first.attributes["batch_model.run_id"] != second.attributes["batch_model.run_id"]
    tasks = {span.try_number: span for span in trace if span.name == TASK}
    assert {number: span.span_id for number, span in tasks.items()} == {1: first.parent, 2: second.parent}


def test_the_last_failure_fails_the_run_and_says_where(run_dag, state):
    with _dag(retries=1) as dag:

        @task.batch_model
        def failing():
            with current_run().stage("load"):
                pass
            with current_run().stage("score"), current_run().stage("predict"):
                raise ValueError("no such column: 'age'")

        failing()
    assert run_dag(dag).state == "failed"
    assert [run.outcome for run in spans(state, RUN)] == ["retrying", "failed"]
    run = spans(state, RUN)[-1]
    assert (run.error, run.stage) == ("ValueError", "predict")
    assert run.attributes["error.message"] == "no such column: 'age'"
    assert "in failing" in run.attributes["error.stack"]
    errors = {stage.resource: stage.error for stage in spans(state, STAGE) if stage.parent == run.span_id}
    assert errors == {"load": "", "score": "ValueError"}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(AirflowSkipException("not today"), "skipped"), (AirflowFailException("for good"), "failed")],
    ids=["skip", "fail"],
)
def test_an_end_by_exception_is_not_retried(run_dag, state, error, outcome):
    with _dag(retries=2) as dag:

        @task.batch_model
        def ending():
            raise error

        ending()
    run_dag(dag)
    (run,) = spans(state, RUN)
    assert run.outcome == outcome
    assert bool(run.error) == (outcome == "failed")


def test_a_task_that_takes_too_long_is_one_run(run_dag, state):
    with _dag(execution_timeout=timedelta(seconds=1)) as dag:

        @task.batch_model
        def slow():
            import time

            with current_run().stage("score"):
                time.sleep(60)

        slow()
    assert run_dag(dag).state == "failed"
    (run,) = spans(state, RUN)
    assert (run.outcome, run.error, run.stage) == ("timed_out", "AirflowTaskTimeout", "score")


def test_a_task_that_leaves_by_sys_exit_is_one_run(run_dag, state):
    with _dag() as dag:

        @task.batch_model
        def leaving():
            raise SystemExit(3)

        leaving()
    run_dag(dag)
    (run,) = spans(state, RUN)
    assert (run.outcome, run.error) == ("failed", "SystemExit")


def test_a_template_that_cannot_be_rendered_is_one_failed_run(run_dag, state):
    with _dag() as dag:
        Templated(text="{{ 1 / 0 }}", task_id="templated")
    assert run_dag(dag).state == "failed"
    trace = _trace(state)
    (run,) = (span for span in trace if span.name == RUN)
    assert (run.outcome, run.error) == ("failed", "ZeroDivisionError")
    assert [span.span_id for span in trace if span.name == TASK] == [run.parent]


def test_a_deferred_task_is_one_run_over_both_phases(run_dag, state):
    with _dag() as dag:
        Patient(task_id="patient")
    assert run_dag(dag).state == "success"
    (run,) = spans(state, RUN)
    assert run.outcome == "success"
    assert run.attributes["batch_model.rows.read"] == 3
    assert run.attributes["batch_model.measurement.asked"] == 1
    stages = spans(state, STAGE)
    assert [stage.resource for stage in stages] == ["phase", "ask", "waiting", "phase", "answer"]
    first, ask, waiting, second, answer = stages
    assert {first.parent, waiting.parent, second.parent} == {run.span_id}
    assert (ask.parent, answer.parent) == (first.span_id, second.span_id)
    assert run.start_ns <= first.start_ns <= ask.start_ns
    assert first.end_ns == waiting.start_ns <= waiting.end_ns == second.start_ns
    assert answer.end_ns <= second.end_ns <= run.end_ns
    assert run.attributes["batch_model.phases"] == 2


def test_a_deferred_task_that_fails_later_is_one_failed_run(run_dag, state):
    with _dag() as dag:
        Patient(task_id="unlucky")
    assert run_dag(dag).state == "failed"
    (run,) = spans(state, RUN)
    assert (run.outcome, run.error) == ("failed", "RuntimeError")


def test_a_sensor_that_is_rescheduled_is_one_run_over_all_its_pokes(run_dag, state):
    Poking.pokes = 0
    with _dag() as dag:
        Poking(task_id="poking", mode="reschedule", poke_interval=0.1)
    assert run_dag(dag).state == "success"
    (run,) = spans(state, RUN)
    assert (run.outcome, run.try_number, run.attributes["batch_model.rows.read"]) == ("success", 1, 3)
    names = [stage.resource for stage in spans(state, STAGE)]
    assert [name for name in names if name.startswith("poke")] == ["poke 1", "poke 2", "poke 3"]
    assert (names.count("phase"), names.count("waiting"), run.attributes["batch_model.phases"]) == (3, 2, 3)


def test_secrets_do_not_leave_in_errors_and_events(run_dag, state):
    mask_secret("correct-horse-battery")
    with _dag() as dag:

        @task.batch_model
        def careless():
            current_run().event("logging in with correct-horse-battery")
            raise RuntimeError("cannot log in with correct-horse-battery")

        careless()
    run_dag(dag)
    (run,) = spans(state, RUN)
    assert run.attributes["error.message"] == "cannot log in with ***"
    assert run.events == ["logging in with ***"]
    _trace(state)
    written = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    assert b"correct-horse-battery" not in written


def test_without_dag_run_spans_a_run_is_the_root(run_dag, state, monkeypatch):
    monkeypatch.setenv("BATCHOBS_DAG_RUN_SPANS", "false")
    with _dag() as dag:
        task.batch_model(lambda: None, task_id="alone")()
    run_dag(dag)
    (run,) = spans(state)
    assert (run.name, run.parent) == (RUN, "")
