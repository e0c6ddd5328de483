"""The projected number of custom metrics, against what a simulated day really sends."""

from __future__ import annotations

import pytest

from batch_observability import schema
from batch_observability.lint import series
from batch_observability.lint.gate import look
from batch_observability.lint.series import Assumed, project
from tests.lint import day


@pytest.mark.thorough
def test_it_is_within_ten_percent_of_what_a_day_sends(tmp_path):
    """Of 300 models in five environments it takes minutes: see tests/thorough."""
    emitted, by_metric = day.emitted(tmp_path, day.ENVS[:2], 40)
    found = project(look([tmp_path]).subjects, Assumed(envs=day.ENVS[:2]))
    assert abs(found.total / emitted - 1) < 0.1
    # What is silent is stated, and nothing else is left out.
    silent = {metric.name for metric in series.SILENT}
    assert {name for name, number in found.by_metric.items() if not number} == silent
    assert not any(by_metric[name] for name in silent)


CATALOG = """\
models:
  - name: churn
    owner: team-risk
    tier: 3
    sla: {finish_within: 20m, start_within: 5m, freshness: 26h}
    match: [{dag_id: churn, task_id: score}, {dag_id: churn, task_id: report}]
    schedule: 10 3 * * *
"""


def projected(tmp_path, text=CATALOG, **assumed):
    path = tmp_path / "batch_models.yaml"
    path.write_text(text, encoding="utf-8")
    return project(look([path]).subjects, Assumed(**{"failing": 0.0, "breaking": 0.0, **assumed}))


def test_each_combination_of_tags_is_counted_once(tmp_path):
    found = projected(tmp_path, stages=3, measurements=2)
    # Two tasks and a job; a distribution is five.
    numbers = {name.partition(".")[2]: number for name, number in found.by_metric.items() if number}
    assert numbers == {
        "run.started": 3,
        "run.finished": 3,
        "run.duration": 15,
        "run.start_delay": 15,
        "stage.duration": 45,
        "rows.read": 15,
        "rows.written": 15,
        "rows.rejected": 15,
        "measurement": 30,
        "memory.peak": 15,
        "cpu.time": 15,
        "sla.margin": 6,
        "sla.checked": 9,
        "freshness": 1,
    }
    assert found.total == sum(numbers.values())
    assert found.by_model == {"churn": found.total}


def test_environments_hosts_and_percentiles_multiply(tmp_path):
    once = projected(tmp_path).total
    assert projected(tmp_path, envs=("prod", "test")).total == 2 * once
    assert projected(tmp_path, hosts=3).total == 3 * once
    distributions = sum(
        number for name, number in projected(tmp_path).by_metric.items() if schema.METRICS[name].type == "distribution"
    )
    assert projected(tmp_path, percentiles=True).total == once + distributions


def test_what_fails_has_further_outcomes_and_what_breaks_is_counted(tmp_path):
    name = schema.RUN_FINISHED.name
    # Those of Airflow are tried again; the job is not.
    assert projected(tmp_path, failing=0.5).by_metric[name] == 3 + 2 * 0.5 * 2 + 0.5
    broken = projected(tmp_path, breaking=0.1).by_metric
    assert broken[schema.SLA_BREACHED.name] == pytest.approx(0.1 * (3 * 2 + 1))
    assert broken[schema.SLA_AT_RISK.name] == pytest.approx(0.1 * (3 + 1))
    assert broken[schema.RUN_MISSED.name] == pytest.approx(0.3)


def test_tasks_of_dag_files_are_counted_where_a_pattern_means_several(tmp_path):
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "dag.py").write_text(
        "from airflow.sdk import DAG\nwith DAG('churn'):\n"
        + "".join(f"    Operator(task_id='score_{number}')\n" for number in range(4)),
        encoding="utf-8",
    )
    text = "models: [{name: churn, owner: x, tier: 3, match: {dag_id: 'ch*', task_id: 'score_*'}}]\n"
    (folder / "batch_models.yaml").write_text(text, encoding="utf-8")
    assert project(look([folder]).subjects, Assumed()).by_metric[schema.RUN_STARTED.name] == 4
    assert projected(tmp_path, text).by_metric[schema.RUN_STARTED.name] == 1
