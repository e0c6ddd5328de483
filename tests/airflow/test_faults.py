"""What breaks inside of a hook stays there: the task is not affected, and one line tells of it."""

from __future__ import annotations

from datetime import datetime

import pytest
from airflow.sdk import DAG, BaseOperator

from batch_observability import BatchModel, BatchModelMixin
from batch_observability.airflow import compat, listener, observed, scheduler
from tests.airflow import fakes
from tests.airflow.spooled import RUN, spans


class Score(BatchModelMixin, BaseOperator):
    model = BatchModel("churn-score", owner="team-risk")


@pytest.fixture
def score():
    return Score(task_id="score")


@pytest.fixture(autouse=True)
def nothing_stays_open():
    yield
    observed.pause()


def _broken(*arguments, **named):
    raise RuntimeError("broken inside")


def ended(score):
    return {"previous_state": fakes.RUNNING, "task_instance": fakes.task_instance(score)}


FAULTS = {
    "on_task_instance_running": (lambda score: {"task_instance": fakes.task_instance(score)}, (observed, "begin")),
    "on_task_instance_success": (ended, (listener, "model_of")),
    "on_task_instance_skipped": (ended, (observed, "end")),
    "on_task_instance_failed": (
        lambda score: {**ended(score), "error": ValueError("the task's own")},
        (compat, "state_of"),
    ),
    "before_stopping": (
        lambda score: {"component": type("TaskRunnerMarker", (), {})()},
        (observed, "open_task_instance"),
    ),
    "on_dag_run_success": (lambda _: {"dag_run": object()}, (scheduler, "start_helper")),
    "on_dag_run_failed": (lambda _: {"dag_run": object(), "msg": "task_failure"}, (scheduler, "start_helper")),
}


@pytest.mark.parametrize("hook", FAULTS)
def test_what_breaks_inside_of_a_hook_stays_there_and_is_told_once(score, outside_pytest, monkeypatch, caplog, hook):
    arguments, place = FAULTS[hook]
    with monkeypatch.context() as broken:
        broken.setattr(*place, _broken)
        for _ in range(3):
            getattr(listener, hook)(**arguments(score))
    (record,) = (record for record in caplog.records if record.name == "batch_observability")
    assert record.levelname == "WARNING"
    assert f"{hook} failed, the task is not affected: RuntimeError: broken inside" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_under_pytest_it_is_raised(score, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(observed, "begin", _broken)
        with pytest.raises(RuntimeError, match="broken inside"):
            listener.on_task_instance_running(task_instance=fakes.task_instance(score))


def test_a_task_whose_observation_cannot_begin_still_runs(run_dag, outside_pytest, monkeypatch, state):
    class Work(Score):
        def execute(self, context):
            with self.batch.stage("load"):
                self.batch.rows(read=1)

    monkeypatch.setattr(compat, "trace_parent", _broken)
    with DAG("broken", start_date=datetime(2024, 1, 1), schedule=None) as dag:
        Work(task_id="score")
    assert run_dag(dag).state == "success"
    assert spans(state, RUN) == []
