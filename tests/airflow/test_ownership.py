"""The ownership gate where DAGs are parsed: it warns once, or refuses, and is quick."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.exceptions import AirflowClusterPolicyViolation
from airflow.sdk import DAG, BaseOperator

from batch_observability import SLA, BatchModel, BatchModelMixin
from batch_observability.airflow import declared, ownership
from batch_observability.airflow.policy import dag_policy
from batch_observability.config import Settings

GOOD = BatchModel(
    "churn",
    owner="team-risk",
    tier=1,
    runbook="https://wiki.example.com/churn",
    sla=SLA(finish_within="20m", success_rate="99%"),
)
CATALOG = """\
owners:
  team-risk: {oncall: "@pagerduty-risk"}
  team-quiet: {contact: quiet@example.com}
models:
  - {name: nobody, owner: team-risk, tier: 3}
  - {name: matched, tier: 3, match: {dag_id: ownership, task_id: plain}}
"""


class Score(BatchModelMixin, BaseOperator):
    """An operator that is a model."""


def dag_of(*models, plain=False):
    with DAG("ownership", start_date=datetime(2024, 1, 1), schedule=None) as dag:
        for number, model in enumerate(models):
            Score(task_id=f"score_{number}", model=model)
        if plain:
            BaseOperator(task_id="plain")
    return dag


@pytest.fixture
def parsing(monkeypatch, tmp_path):
    """A process that keeps DAGs, with a catalog of its own."""
    path = tmp_path / "batch_models.yaml"
    path.write_text(CATALOG, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["airflow", "dag-processor"])
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("BATCHOBS_CATALOG", str(path))
    return path


def rules(*models, **how):
    return [one.rule for one in ownership.findings(dag_of(*models, **how))]


@pytest.mark.usefixtures("parsing")
def test_a_model_is_looked_at_with_what_the_catalog_adds():
    assert rules(GOOD) == []
    # Owner and tier are in the catalog.
    assert rules(BatchModel("nobody")) == []
    assert rules(BatchModel("unheard-of")) == ["missing-owner", "missing-tier"]


@pytest.mark.usefixtures("parsing")
def test_what_is_demanded_depends_on_the_tier():
    assert rules(BatchModel("one", owner="team-quiet", tier=1)) == [
        "missing-runbook",
        "missing-objectives",
        "missing-objectives",
        "missing-oncall",
    ]
    assert rules(BatchModel("two", owner="team-quiet", tier=2)) == ["missing-runbook", "missing-objectives"]
    assert rules(BatchModel("three", owner="team-quiet", tier="gold")) == []


@pytest.mark.usefixtures("parsing")
def test_a_task_that_is_a_model_by_the_catalog_alone_is_looked_at():
    assert rules(plain=True) == ["missing-owner"]


@pytest.mark.usefixtures("parsing")
def test_a_model_of_several_tasks_is_told_once():
    model = BatchModel("unheard-of", tier=3)
    assert rules(model, model, BatchModel("unheard-of", tier=3)) == ["missing-owner"]


def test_without_a_catalog_nobody_can_have_a_handle(parsing, monkeypatch):
    parsing.unlink()
    monkeypatch.setenv("AIRFLOW_HOME", str(parsing.parent / "none"))
    monkeypatch.delenv("BATCHOBS_CATALOG")
    assert declared.catalog() is None
    assert rules(GOOD) == []


@pytest.mark.usefixtures("parsing")
def test_it_warns_once_for_a_version_of_the_file(caplog, tmp_path):
    settings, dag = Settings(state_dir=str(tmp_path / "state")), dag_of(BatchModel("unheard-of", tier=3))
    dag.fileloc = str(tmp_path / "dag.py")
    Path(dag.fileloc).write_text("1", encoding="utf-8")
    with caplog.at_level(logging.WARNING, "batch_observability"):
        assert [ownership.check(dag, settings) for _ in range(3)] == ["", "", ""]
        assert len(caplog.records) == 1
        said = caplog.records[0].getMessage()
        Path(dag.fileloc).write_text("a newer one", encoding="utf-8")
        ownership.check(dag, settings)
    assert len(caplog.records) == 2
    assert said == (
        "DAG 'ownership': model 'unheard-of' has no owner (missing-owner): "
        "name the team that answers for it: owner: team-risk"
    )


@pytest.mark.usefixtures("parsing")
def test_of_many_findings_the_first_are_logged(caplog, tmp_path):
    dag = dag_of(*(BatchModel(f"unheard-of-{number}", tier=3) for number in range(14)))
    ownership.check(dag, Settings(state_dir=str(tmp_path / "state")))
    assert len(caplog.records) == 11
    assert "4 more. Run `batchobs lint" in caplog.records[-1].getMessage()


@pytest.mark.usefixtures("parsing")
def test_what_cannot_be_kept_is_said_again(caplog, tmp_path):
    (tmp_path / "state").write_text("a file", encoding="utf-8")
    dag = dag_of(BatchModel("unheard-of", tier=3))
    dag.fileloc = str(tmp_path / "gone.py")
    for _ in range(2):
        ownership.check(dag, Settings(state_dir=str(tmp_path / "state")))
    assert len(caplog.records) == 2


@pytest.mark.usefixtures("parsing")
def test_it_refuses_where_that_is_asked_for(monkeypatch):
    monkeypatch.setenv("BATCHOBS_LINT", "refuse")
    with pytest.raises(AirflowClusterPolicyViolation) as refused:
        dag_policy(dag_of(BatchModel("unheard-of", tier=3)))
    said = str(refused.value)
    assert "model 'unheard-of' has no owner (missing-owner): name the team" in said
    assert "\n" not in said
    # A warning is none of that.
    dag_policy(dag_of(BatchModel("two", owner="team-quiet", tier=2)))


DAG_FILE = """
from datetime import datetime
from airflow.sdk import DAG, BaseOperator
from batch_observability import BatchModel, BatchModelMixin

class Score(BatchModelMixin, BaseOperator):
    model = BatchModel("unheard-of", tier=3)

with DAG("refused", start_date=datetime(2024, 1, 1), schedule=None):
    Score(task_id="score")
"""


@pytest.mark.usefixtures("parsing")
def test_a_refused_dag_is_an_import_error_that_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("BATCHOBS_LINT", "refuse")
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "dag.py").write_text(DAG_FILE, encoding="utf-8")
    bag = BundleDagBag(dag_folder=str(folder), bundle_path=folder, bundle_name="tests")
    assert bag.dags == {}
    (said,) = bag.import_errors.values()
    assert "model 'unheard-of' has no owner (missing-owner): name the team that answers for it" in said


@pytest.mark.usefixtures("parsing")
@pytest.mark.parametrize("lint", ["off", "warn"])
def test_else_it_refuses_nothing(monkeypatch, lint, caplog):
    monkeypatch.setenv("BATCHOBS_LINT", lint)
    dag_policy(dag_of(BatchModel("unheard-of", tier=3)))
    assert bool(caplog.records) == (lint == "warn")


@pytest.mark.usefixtures("parsing")
def test_a_task_that_runs_is_not_refused(monkeypatch):
    """Its DAG was taken before: only who keeps DAGs looks at them."""
    monkeypatch.setattr(sys, "argv", ["airflow", "tasks"])
    monkeypatch.setenv("BATCHOBS_LINT", "refuse")
    dag_policy(dag_of(BatchModel("unheard-of", tier=3)))


@pytest.mark.usefixtures("parsing", "outside_pytest")
def test_a_gate_that_breaks_refuses_nothing(monkeypatch):
    def broken(*_):
        raise RuntimeError("broken inside")

    monkeypatch.setenv("BATCHOBS_LINT", "refuse")
    monkeypatch.setattr(ownership, "check", broken)
    dag_policy(dag_of(BatchModel("unheard-of", tier=3)))


@pytest.mark.usefixtures("parsing")
def test_fifty_models_are_looked_at_within_the_budget(tmp_path):
    """
    A budget of 1 ms a DAG; the best of many, for others use the processor too, and a generous bound, for the coverage
    of each line is noted meanwhile.
    """
    dag = dag_of(*(replace(GOOD, name=f"model-{number}") for number in range(50)))
    settings = Settings(state_dir=str(tmp_path / "state"))
    took = []
    for _ in range(30):
        before = time.thread_time()
        ownership.check(dag, settings)
        took.append(time.thread_time() - before)
    print(f"{min(took) * 1000:.2f} ms for 50 models")
    assert min(took) < 0.02
