"""Tasks that are batch models by the catalog alone, and models in code that the catalog completes."""

from __future__ import annotations

import logging
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from batch_observability import SLA, BatchModel, batch_model
from batch_observability.airflow import declared, registry
from batch_observability.airflow.declared import model_of
from batch_observability.airflow.policy import task_policy
from batch_observability.cli.dag_files import tasks_of
from tests.airflow.spooled import RUN, spans

EXAMPLES = Path(find_spec("airflow.example_dags").submodule_search_locations[0])
TEXT = """\
owners: {team-risk: {oncall: "@slack-risk"}}
models:
  - name: churn
    owner: team-risk
    tier: 1
    runbook: https://example.com/churn
    sla: {finish_within: 20m, min_rows: 1}
    match:
      - {dag_id: tutorial_taskflow_api, task_id: transform}
      - {dag_id: example_task_group, task_id: section_1.*}
      - {dag_id: example_dynamic_task_mapping, task_id: add_one}
      - {dag_id: nightly*}
  - name: everything
    owner: team-all
    match: {dag_id: example_*}
"""


@pytest.fixture(autouse=True)
def runs_only(monkeypatch):
    """DAG-run and task spans are not what is looked at here; and no test sees the catalog of another."""
    monkeypatch.setenv("BATCHOBS_DAG_RUN_SPANS", "false")
    monkeypatch.setattr(declared._Catalog, "variables", ())
    monkeypatch.setattr(declared._Catalog, "lookup", None)
    monkeypatch.setattr(declared._Catalog, "told", "")


@pytest.fixture
def catalog(monkeypatch, tmp_path):
    """Return a function that writes the catalog."""
    path = tmp_path / "batch_models.yaml"
    monkeypatch.setenv("BATCHOBS_CATALOG", str(path))

    def write(text=TEXT):
        path.write_text(text)
        declared._Catalog.looked_at = float("-inf")
        return path

    write()
    return write


def example(name):
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(EXAMPLES / f"{name}.py").dags[name]


def dag(dag_id="nightly", model=None):
    with DAG(dag_id, start_date=datetime(2024, 1, 1), schedule=None) as made:
        PythonOperator(task_id="score", python_callable=batch_model(print, model) if model else print)
    return made


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("tutorial_taskflow_api", {("transform", "churn")}),
        ("example_dynamic_task_mapping", {("add_one", "churn"), ("sum_it", "everything")}),
        ("example_task_group", {("section_1.task_2", "churn"), ("section_2.inner_section_2.task_2", "everything")}),
    ],
)
def test_examples_of_airflow_are_observed_by_catalog_alone(run_dag, state, catalog, name, runs):
    assert run_dag(example(name)).state == "success"
    found = spans(state, RUN)
    assert {(run.task_id, run.attributes["batch_model.name"]) for run in found} == runs
    run = next(run for run in found if run.attributes["batch_model.name"] == "churn")
    assert (run.outcome, run.service) == ("success", "churn")
    assert run.attributes["batch_model.owner"] == "team-risk"
    assert run.attributes["batch_model.objective.finish_within"] == "20m"


def test_without_a_catalog_they_are_not(run_dag, state):
    assert run_dag(example("tutorial_taskflow_api")).state == "success"
    assert not state.exists()


def test_the_catalog_adds_to_what_code_says(run_dag, state, catalog):
    model = BatchModel("churn", version="3", tier=3, sla=SLA(min_rows=7))
    assert run_dag(dag("another", model)).state == "success"
    (run,) = spans(state, RUN)
    expected = {
        "batch_model.version": "3",
        "batch_model.tier": "3",
        "batch_model.owner": "team-risk",
        "batch_model.objective.min_rows": "7",
        "batch_model.objective.finish_within": "20m",
    }
    assert {name: str(run.attributes.get(name)) for name in expected} == expected


def test_a_model_in_code_is_not_another_by_a_pattern(catalog):
    assert model_of(dag(model=BatchModel("own")).task_dict["score"]).name == "own"


def test_a_task_that_airflow_passes_over_is_none(catalog):
    with dag() as made:
        EmptyOperator(task_id="end")
    assert model_of(made.task_dict["score"]).name == "churn"
    assert model_of(made.task_dict["end"]) is None


def test_a_task_by_catalog_alone_has_its_link_to_the_trace(catalog):
    task = dag().task_dict["score"]
    task_policy(task)
    assert [type(link).__name__ for link in task.operator_extra_links] == ["TraceLink"]


def test_what_code_says_is_written_down_beside_the_model(state, catalog):
    registry.declare(dag(), state)
    registry.declare(dag("other", BatchModel("churn", tier=2)), state)
    found = registry.declared(state)
    assert found["nightly", "score"].code is None
    assert found["other", "score"].code == {"name": "churn", "tier": "2"}
    for one in found.values():
        assert one.model["owner"] == "team-risk"
    before = found["nightly", "score"].since_ns
    catalog(TEXT.replace("tier: 1", "tier: 4"))
    registry.declare(dag(), state)
    now = registry.declared(state)["nightly", "score"]
    assert (now.model["tier"], now.since_ns) == ("4", before)


def test_a_catalog_that_changes_is_read_again_after_a_while(catalog, monkeypatch):
    task = dag().task_dict["score"]
    assert model_of(task).tier == "1"
    path = catalog(TEXT.replace("tier: 1", "tier: 2"))
    assert model_of(task).tier == "2"
    path.write_text(TEXT.replace("tier: 1", "tier: 3"))
    assert model_of(task).tier == "2"
    path.unlink()
    monkeypatch.setattr(declared, "_HOLDS_S", 0.0)
    assert model_of(task) is None


def test_a_broken_catalog_harms_no_task_and_is_told_once(run_dag, state, catalog, caplog, outside_pytest):
    catalog(TEXT.replace("tier: 1", "tier: 0").replace("min_rows: 1", "min_rows: -1"))
    with caplog.at_level(logging.WARNING, "batch_observability"):
        assert run_dag(dag()).state == "success"
        assert run_dag(dag("nightly_too")).state == "success"
    assert {run.attributes["batch_model.tier"] for run in spans(state, RUN)} == {"3"}
    told = [record.getMessage() for record in caplog.records if "tier of batch model" in record.getMessage()]
    assert len(told) == 1
    assert told[0].endswith("(and 1 more). Run `batchobs catalog check`.")
    assert "batch_models.yaml:5: tier of batch model 'churn' is '0'" in told[0]


@pytest.mark.parametrize("text", ["models: [", "\0", "models: [{match: {dag_id: nightly}}]"])
def test_a_catalog_that_cannot_be_read_harms_no_task(run_dag, catalog, outside_pytest, text):
    catalog(text)
    assert run_dag(dag()).state == "success"


def test_where_the_catalog_cannot_be_asked_a_model_in_code_is_as_it_is(catalog, mocker, outside_pytest):
    mocker.patch("batch_observability.airflow.declared.paths_of", side_effect=OSError("no"))
    catalog()
    assert model_of(dag(model=BatchModel("churn")).task_dict["score"]) == BatchModel("churn")


# --- DAG files that are read and not run -------------------------------------------------------------------------


def test_ids_of_airflows_examples_are_found_without_running_them():
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(EXAMPLES)
    real = {(task.dag_id, task.task_id) for one in bag.dags.values() for task in one.tasks}
    files = {one.fileloc for one in bag.dags.values()}
    found = [one for one in tasks_of(EXAMPLES) if one.task_id]
    # A file that needs what is not installed has no DAGs here.
    assert {(one.dag_id, one.task_id) for one in found if one.file in files} - real == set()
    assert len(real & {(one.dag_id, one.task_id) for one in found}) > 0.85 * len(real)
