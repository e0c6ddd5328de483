"""The link that observed tasks get, whichever way their model is declared, and what it does to serialized DAGs."""

from __future__ import annotations

import sys
import textwrap
from datetime import datetime
from types import SimpleNamespace

import pytest
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.listeners.listener import get_listener_manager as get_core_listeners
from airflow.models.serialized_dag import SerializedDagModel
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, BaseOperator, BaseOperatorLink, task
from airflow.sdk.listener import get_listener_manager as get_task_listeners
from airflow.serialization.serialized_objects import DagSerialization

from batch_observability import BatchModel, BatchModelMixin, batch_model
from batch_observability.airflow import listener, observed
from batch_observability.airflow.links import TraceLink, trace_url
from batch_observability.airflow.policy import task_policy
from batch_observability.schema import Outcome
from tests.airflow import fakes

MODEL = BatchModel("churn-score", owner="team-risk")
TRACE = "53f5062d4b5f393dad7c35b90ea8e865"

DAG_FILE = """
    from datetime import datetime
    from airflow.providers.standard.operators.python import PythonOperator
    from airflow.sdk import DAG, BaseOperator, task
    from batch_observability import SLA, BatchModel, BatchModelMixin, batch_model

    SLAS = SLA(start_within="5m", finish_by="06:30 Europe/London", finish_within="20m", success_rate=0.99)
    MODEL = BatchModel("churn-score", owner="team-risk", sla=SLAS, runbook="https://example.com")

    class Score(BatchModelMixin, BaseOperator):
        model = MODEL

    def work(n=1):
        return n

    default_args = {"model": MODEL, "owner": "team-risk"}
    with DAG("everywhere", start_date=datetime(2024, 1, 1), schedule=None, default_args=default_args):
        Score(task_id="class_attribute")
        Score(task_id="argument", model=BatchModel("other-score"))
        Score.partial(task_id="mapped", model=MODEL).expand(doc_md=["a", "b"])
        task.batch_model(work, task_id="decorated")()
        task.batch_model(work, task_id="decorated_mapped", model=MODEL).expand(n=[1, 2])
        PythonOperator(task_id="wrapped", python_callable=batch_model(work, MODEL), op_kwargs={"n": 2})
        task(batch_model(work, MODEL), task_id="under_task")()
        PythonOperator(task_id="plain", python_callable=work)
"""


TRIGGERER_DAG_FILE = """
    from datetime import datetime
    from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
    from airflow.sdk import DAG

    with DAG("triggerer", start_date=datetime(2024, 1, 1), schedule=None):
        DateTimeSensorAsync(
            task_id="wait", target_time="2024-01-01", start_from_trigger=True, end_from_trigger=True
        )
"""


class Score(BatchModelMixin, BaseOperator):
    model = MODEL


class OwnLink(BaseOperatorLink):
    name = "Report"

    def get_link(self, operator, *, ti_key):
        return "https://example.com/report"


class Linked(Score):
    operator_extra_links = (OwnLink(),)


@pytest.fixture
def parsed(tmp_path):
    """Parses a DAG file as Airflow does, each time anew; cluster policies included."""
    folder = tmp_path / "dags"
    folder.mkdir()

    def parse(text=DAG_FILE):
        (folder / "dag.py").write_text(textwrap.dedent(text))
        bag = BundleDagBag(dag_folder=str(folder), bundle_path=folder, bundle_name="tests")
        assert bag.import_errors == {}
        (dag,) = bag.dags.values()
        return dag

    return parse


def names(operator):
    return [link.name for link in operator.operator_extra_links]


def test_an_observed_task_gets_its_link_once():
    operator = Score(task_id="score")
    task_policy(operator)
    task_policy(operator)
    assert names(operator) == ["Trace in Datadog"]


def test_other_links_are_kept_and_the_class_is_left_alone():
    operator = Linked(task_id="score")
    task_policy(operator)
    assert names(operator) == ["Report", "Trace in Datadog"]
    assert [link.name for link in Linked.operator_extra_links] == ["Report"]


def test_an_unobserved_task_is_not_touched():
    plain = PythonOperator(task_id="plain", python_callable=print)
    before = plain.operator_extra_links
    task_policy(plain)
    assert plain.operator_extra_links is before


@pytest.mark.parametrize(
    "make",
    [
        lambda: Score.partial(task_id="score").expand(doc_md=["a"]),
        lambda: Linked.partial(task_id="score", model=MODEL).expand(doc_md=["a"]),
        lambda: PythonOperator.partial(task_id="score", python_callable=batch_model(print, MODEL)).expand(
            op_args=[[1]]
        ),
    ],
    ids=["class", "linked", "wrapped"],
)
def test_a_mapped_task_gets_its_link(make):
    with DAG("mapped", start_date=datetime(2024, 1, 1), schedule=None):
        operator = make()
    task_policy(operator)
    task_policy(operator)
    assert names(operator).count("Trace in Datadog") == 1


def test_airflow_calls_the_policy_at_every_parse(parsed):
    links = {operator.task_id: names(operator) for operator in parsed().tasks}
    assert links.pop("plain") == []
    assert len(links) == 7
    assert {tuple(link) for link in links.values()} == {("Trace in Datadog",)}


def test_a_dag_that_ends_in_the_triggerer_is_no_import_error_because_of_us(parsed):
    core, tasks = get_core_listeners(), get_task_listeners()
    assert core.pm.is_registered(listener)
    try:
        assert parsed(TRIGGERER_DAG_FILE).dag_id == "triggerer"
    finally:
        core.add_listener(listener)
    assert tasks.pm.is_registered(listener), "tasks of this process would not be observed any more"


@pytest.fixture(params=["dag-processor", "tasks"])
def command(request, monkeypatch):
    """Who parses: the DAG processor also attaches deadlines."""
    monkeypatch.setattr(sys, "argv", ["airflow", request.param])
    return request.param


def test_only_who_keeps_dags_attaches_deadlines(command, parsed):
    assert len(parsed().deadline or ()) == (command == "dag-processor")


@pytest.mark.usefixtures("command")
def test_a_dag_full_of_models_survives_serialization(parsed):
    serialized = DagSerialization.to_dict(parsed())
    DagSerialization.validate_schema(serialized)
    again = DagSerialization.from_dict(serialized)
    assert set(again.task_dict) == set(parsed().task_dict)
    for task_id, operator in again.task_dict.items():
        assert list(operator.extra_links) == ([] if task_id == "plain" else ["Trace in Datadog"])


@pytest.mark.usefixtures("command")
def test_two_parses_are_the_same_to_airflow(parsed):
    # Both are kept, so that nothing of the second can have an address of the first.
    first, second = parsed(), parsed()
    hashes = {SerializedDagModel.hash(DagSerialization.to_dict(dag)) for dag in (first, second)}
    assert len(hashes) == 1, "every parse would make a new DAG version"


@pytest.mark.parametrize(
    ("site", "host"),
    [
        (None, "app.datadoghq.com"),
        ("", "app.datadoghq.com"),
        ("datadoghq.com", "app.datadoghq.com"),
        ("datadoghq.eu", "app.datadoghq.eu"),
        ("ddog-gov.com", "app.ddog-gov.com"),
        ("us3.datadoghq.com", "us3.datadoghq.com"),
        ("us5.datadoghq.com", "us5.datadoghq.com"),
        ("ap1.datadoghq.com", "ap1.datadoghq.com"),
        ("ap2.datadoghq.com", "ap2.datadoghq.com"),
    ],
)
def test_the_link_goes_to_the_site(monkeypatch, site, host):
    if site is not None:
        monkeypatch.setenv("DD_SITE", site)
    assert trace_url(TRACE) == f"https://{host}/apm/trace/{TRACE}"


def test_the_link_is_that_of_the_open_run():
    """Airflow asks for the links of a task before it calls the hooks of its end."""
    operator = Score(task_id="score")
    instance = fakes.task_instance(operator)
    observed.begin(instance, MODEL)
    link = TraceLink().get_link(operator, ti_key=instance)
    another = TraceLink().get_link(operator, ti_key=SimpleNamespace(id="another"))
    observed.end(instance, Outcome.SUCCESS)
    assert link == f"https://app.datadoghq.com/apm/trace/{fakes.TRACE_ID:032x}"
    assert another == ""


def test_the_link_of_a_run_that_was_not_observed_is_empty():
    assert TraceLink().get_link(Score(task_id="score"), ti_key=SimpleNamespace(id="any")) == ""


def test_a_policy_that_breaks_does_not_break_the_parse(outside_pytest, monkeypatch, parsed):
    def broken(task):
        raise RuntimeError("broken inside")

    monkeypatch.setattr("batch_observability.airflow.policy.model_of", broken)
    assert names(parsed().get_task("wrapped")) == []


def test_a_function_is_found_under_other_decorators():
    import functools

    from batch_observability.airflow.declared import model_of

    def timed(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    marked = batch_model(print, MODEL)
    for function in (marked, timed(marked), functools.partial(marked, 1), timed(functools.partial(timed(marked), 2))):
        assert model_of(PythonOperator(task_id="score", python_callable=function)) is MODEL
    assert model_of(PythonOperator(task_id="score", python_callable=timed(print))) is None
    assert model_of(task(print_nothing)().operator) is None


def print_nothing():
    """For `@task`, which looks at annotations that a builtin lacks."""
