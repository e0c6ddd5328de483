"""Three ways to declare a batch model, with all that Airflow offers around them, and one result."""

from __future__ import annotations

from datetime import datetime

import pytest
from airflow.providers.standard.operators.python import BranchPythonOperator, PythonOperator
from airflow.sdk import DAG, BaseOperator, task

from batch_observability import SLA, BatchModel, BatchModelMixin, ModelError, batch_model, current_run
from tests.airflow.spooled import RUN, STAGE, spans

MODEL = BatchModel("churn-score", version="3", service="churn", owner="team-risk", tier=1, sla=SLA(finish_within="20m"))


@pytest.fixture(autouse=True)
def runs_only(monkeypatch):
    """DAG-run and task spans are not what is looked at here."""
    monkeypatch.setenv("BATCHOBS_DAG_RUN_SPANS", "false")


def work(value=None):
    """What every way does: one stage, some rows."""
    with current_run().stage("load"):
        current_run().rows(read=3, written=2, rejected=1)
    return value


class Score(BatchModelMixin, BaseOperator):
    """The model comes from the DAG."""

    def execute(self, context):
        with self.batch.stage("load"):
            self.batch.rows(read=3, written=2, rejected=1)


class ScoreChurn(Score):
    """The model is the class's."""

    model = MODEL


class ScorePart(BatchModelMixin, BaseOperator):
    """Has arguments of its own."""

    def __init__(self, part, **kwargs):
        super().__init__(**kwargs)
        self.part = part

    def execute(self, context):
        work()


class ScorePython(BatchModelMixin, PythonOperator):
    """Over another operator."""

    model = MODEL


def _dag(name="declaring", **kwargs):
    return DAG(name, start_date=datetime(2024, 1, 1), schedule=None, **kwargs)


def by_class():
    ScoreChurn(task_id="score")


def by_argument():
    Score(task_id="score", model=MODEL)


def by_argument_over_the_class():
    class Other(Score):
        model = BatchModel("another")

    Other(task_id="score", model=MODEL)


def by_default_args_of_the_task():
    Score(task_id="score", default_args={"model": MODEL})


def by_own_init():
    ScorePart(part="a", task_id="score", model=MODEL)


def by_mixin_over_python_operator():
    ScorePython(task_id="score", python_callable=work)


def by_decorator():
    @task.batch_model(model=MODEL)
    def score():
        work()

    score()


def by_decorator_with_positional_model():
    @task.batch_model(MODEL)
    def score():
        work()

    score()


def by_decorator_with_override():
    @task.batch_model(model=MODEL)
    def other():
        work()

    other.override(task_id="score")()


def by_wrapped_callable():
    PythonOperator(task_id="score", python_callable=batch_model(work, MODEL), op_kwargs={"value": 1})


def by_wrapped_callable_model_first():
    PythonOperator(task_id="score", python_callable=batch_model(MODEL)(work))


def by_decorator_under_task():
    @task
    @batch_model(MODEL)
    def score():
        work()

    score()


def by_fields_under_task():
    @task(multiple_outputs=True)
    @batch_model(
        name="churn-score",
        version="3",
        service="churn",
        owner="team-risk",
        tier=1,
        sla={"finish_within": "20m"},
    )
    def score():
        work()
        return {"a": 1}

    score()


def by_wrapped_branch():
    score = BranchPythonOperator(task_id="score", python_callable=batch_model(work, MODEL), op_kwargs={"value": "go"})
    score >> PythonOperator(task_id="go", python_callable=print)


def by_decorator_under_branch():
    @task.branch
    @batch_model(MODEL)
    def score():
        return work("go")

    score() >> PythonOperator(task_id="go", python_callable=print)


def by_coroutine():
    @task
    @batch_model(MODEL)
    async def score():
        work()

    score()


WAYS = [value for name, value in list(globals().items()) if name.startswith("by_")]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_way_to_declare_a_model_makes_the_same_run(run_dag, state, way):
    with _dag() as dag:
        way()
    assert run_dag(dag).state == "success"

    (run,) = spans(state, RUN)
    assert (run.service, run.resource, run.outcome, run.task_id) == ("churn", "declaring.score", "success", "score")
    expected = {
        "batch_model.name": "churn-score",
        "batch_model.version": "3",
        "batch_model.owner": "team-risk",
        "batch_model.tier": "1",
        "batch_model.objective.finish_within": "20m",
        "batch_model.rows.read": 3,
        "batch_model.rows.written": 2,
        "batch_model.rows.rejected": 1,
        "airflow.dag_id": "declaring",
        "airflow.task_instance.try_number": 1,
        "airflow.task_instance.map_index": -1,
    }
    assert {name: run.attributes.get(name) for name in expected} == expected
    (stage,) = spans(state, STAGE)
    assert (stage.resource, stage.parent) == ("load", run.span_id)


def test_default_args_of_a_dag_reach_batch_models_only(run_dag, state):
    with _dag(default_args={"model": MODEL}) as dag:
        Score(task_id="mixin")
        task.batch_model(work, task_id="decorated")()
        PythonOperator(task_id="plain", python_callable=work)
    assert run_dag(dag).state == "success"
    assert {run.task_id for run in spans(state, RUN)} == {"mixin", "decorated"}


@pytest.mark.parametrize(
    "expand",
    [
        lambda: ScorePart.partial(task_id="score", model=MODEL).expand(part=["a", "b"]),
        lambda: task.batch_model(work, task_id="score", model=MODEL).expand(value=[1, 2]),
        lambda: task(batch_model(work, MODEL), task_id="score").expand(value=[1, 2]),
        lambda: PythonOperator.partial(task_id="score", python_callable=batch_model(work, MODEL)).expand(
            op_kwargs=[{"value": 1}, {"value": 2}]
        ),
        lambda: ScorePython.partial(task_id="score", python_callable=work).expand(op_args=[[1], [2]]),
    ],
    ids=["mixin", "decorator", "under_task", "wrapped", "class"],
)
def test_every_mapped_instance_is_a_run(run_dag, state, expand):
    with _dag() as dag:
        expand()
    assert run_dag(dag).state == "success"
    runs = spans(state, RUN)
    assert sorted(run.attributes["airflow.task_instance.map_index"] for run in runs) == [0, 1]
    assert {run.attributes["batch_model.name"] for run in runs} == {"churn-score"}
    assert len({run.span_id for run in runs}) == 2


def test_multiple_outputs_of_the_decorator_can_be_taken_apart(run_dag):
    with _dag() as dag:

        @task.batch_model(model=MODEL, multiple_outputs=True)
        def score():
            return {"a": 1, "b": 2}

        @task
        def check(value):
            assert value == 2

        check(score()["b"])
    assert run_dag(dag).state == "success"


def test_what_a_wrapped_function_returns_is_what_it_returned_before():
    assert batch_model(work, MODEL)(value=7) == 7
    assert current_run().trace_id == ""
    assert not current_run().active


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Score(task_id="score"),
        lambda: Score(task_id="score", model="churn"),
        lambda: type("Wrong", (Score,), {"model": {"name": "churn"}})(task_id="score"),
        task.batch_model(work, task_id="score"),
        task.batch_model(work, task_id="score", model=None),
    ],
    ids=["missing", "wrong argument", "wrong class attribute", "decorator without", "decorator with None"],
)
def test_a_missing_or_wrong_model_is_told_in_one_line(declare):
    with _dag(), pytest.raises(ModelError) as error:
        declare()
    assert "\n" not in str(error.value)
    assert "task 'score' has model" in str(error.value)
    assert "BatchModel(name=..., owner=...)" in str(error.value)


def test_a_mapped_task_without_a_model_fails_with_that_line(run_dag, state):
    with _dag() as dag:
        ScorePart.partial(task_id="score").expand(part=["a"])
    assert run_dag(dag).state == "failed"
    assert spans(state, RUN) == []


def test_run_is_inert_outside_of_an_observed_task(run_dag, state):
    seen = []
    with _dag() as dag:

        @task
        def plain():
            run = current_run()
            with run.stage("load") as stage:
                run.rows(read=1)
                run.measure("auc", 0.5)
                run.event("hello")
            seen.append((run.active, run.trace_id, stage.duration_s >= 0))

        plain()
    assert run_dag(dag).state == "success"
    assert seen == [(False, "", True)]
    assert not state.exists()
