"""`batchobs lint`: what is printed, what is asked of the ledger, and the exit code."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.world import DAY, ended, here, ledger, model

__all__ = ["here", "ledger"]

CATALOG = """\
models:
  - name: churn
    owner: team-risk
    sla: {finish_within: 20m}
  - name: fraud
    tier: 3
"""


@pytest.fixture
def catalog(tmp_path):
    path = tmp_path / "batch_models.yaml"
    path.write_text(CATALOG, encoding="utf-8")
    return path


def test_each_finding_is_a_line_with_place_rule_and_remedy(here, catalog):
    code, out, err = here("lint", str(catalog))
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert lines[0] == (
        f"{catalog}:2: warning missing-tier: model 'churn' says no tier, and is taken for one of tier 3; "
        "write tier: 1 (most) to 3, or a short label"
    )
    assert lines[1] == (
        f"{catalog}:5: error missing-owner: model 'fraud' has no owner; "
        "name the team that answers for it: owner: team-risk"
    )
    assert [line.split() for line in lines[2:6]] == [
        ["OWNER", "SCORE", "MODELS", "ERRORS", "WARNINGS"],
        ["(nobody)", "75", "1", "1", "0"],
        ["team-risk", "90", "1", "0", "1"],
        ["all", "82", "2", "1", "1"],
    ]
    assert lines[6:9] == [
        "1 error, 1 warning, 0 notes in 2 models of 1 file",
        "objectives are not compared with the past: there is no ledger here",
        "projected custom metrics: 137 a day",
    ]
    assert [line for line in lines if line.startswith("assumed: 1 environment (prod), 1 host")]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((), 1),
        (("--fail-on", "warning"), 1),
        (("--fail-on", "never"), 0),
    ],
)
def test_the_exit_code_is_by_severity(here, catalog, options, code):
    assert here("lint", str(catalog), *options)[0] == code


def test_the_exit_code_of_a_warning_and_a_note(here, tmp_path):
    path = tmp_path / "batch_models.yaml"
    path.write_text("models: [{name: churn, owner: team-risk}]", encoding="utf-8")
    assert [here("lint", str(path), "--fail-on", least)[0] for least in ("error", "warning", "note")] == [0, 1, 1]
    path.write_text("models: [{name: a, owner: x, tier: 3}]  # batchobs: ignore=missing-owner", encoding="utf-8")
    assert [here("lint", str(path), "--fail-on", least)[0] for least in ("error", "warning", "note")] == [0, 0, 1]


def test_a_budget_that_is_too_small_is_an_error(here, catalog):
    code, out, _ = here("lint", str(catalog), "--budget", "1000", "--envs", "prod, staging,prod", "--fail-on", "never")
    assert code == 0
    assert "projected custom metrics: 274 a day of a budget of 1,000" in out
    code, out, _ = here("lint", str(catalog), "--budget", "100")
    assert code == 1
    assert out.startswith(
        "error custom-metrics: 137 custom metrics are projected, and the budget is 100; fewer versions"
    )


def test_assumptions_are_options_and_are_printed(here, catalog):
    options = ("--stages=2", "--measurements=0", "--failing=0", "--breaking=0.5", "--hosts=2", "--percentiles")
    _, out, _ = here("lint", str(catalog), *options, DD_ENV="test")
    assert "assumed: 1 environment (test), 2 hosts for a task or job" in out
    assert "assumed: a distribution counts as 10" in out
    assert "2 stages and 0 measurements" in out
    assert "0.0% of tasks and jobs fail" in out
    assert "50.0% of promises are broken" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("gone.yaml",), "'gone.yaml' is not there: name DAG files"),
        ((), "nothing to check: name DAG files"),
        (("--budget", "0"), "'0' is not a whole number from 1"),
        (("--failing", "200%"), "'200%' is not a share; write for example 5% or 0.05"),
        (("--failing", "few"), "'few' is not a share"),
        (("--envs", ","), "',' names no environment"),
        (("--format", "xml"), "invalid choice: 'xml'"),
    ],
)
def test_a_mistake_in_what_was_asked_is_one_line(here, options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = here("lint", *options)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_without_paths_it_looks_at_the_folder_of_dags_and_this_hosts_catalog(here, catalog, tmp_path):
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "dag.py").write_text(
        "from batch_observability import BatchModel\nBatchModel('stock')\n", encoding="utf-8"
    )
    variables = {"AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"), "BATCHOBS_CATALOG": str(catalog)}
    _, out, _ = here("lint", **variables)
    assert "in 3 models of 2 files" in out


def test_json_has_all_of_it(here, catalog):
    code, out, _ = here("lint", str(catalog), "--format", "json", "--budget", "50")
    said = json.loads(out)
    assert code == 1
    assert [one["rule"] for one in said["findings"]] == ["custom-metrics", "missing-tier", "missing-owner"]
    assert (said["errors"], said["warnings"], said["notes"], said["silenced"]) == (2, 1, 0, 0)
    assert said["scores"][-1] == {"owner": None, "score": 82, "models": 2, "errors": 1, "warnings": 1}
    assert said["custom_metrics"]["projected"] == 137
    assert said["custom_metrics"]["assumed"]["envs"] == ["prod"]


def test_sarif_and_annotations_are_printed_alone(here, catalog):
    _, out, _ = here("lint", str(catalog), "--format", "sarif")
    assert [one["ruleId"] for one in json.loads(out)["runs"][0]["results"]] == ["missing-tier", "missing-owner"]
    _, out, _ = here("lint", str(catalog), "--format", "github")
    assert [line.partition(" ")[0] for line in out.splitlines()] == ["::warning", "::error"]


def test_objectives_are_held_against_the_ledger(here, ledger, catalog):
    churn = model()
    ledger.apply_all([ended(churn, number * DAY // 4, number=number) for number in range(1, 60)])
    catalog.write_text(
        CATALOG.replace("finish_within: 20m", "finish_within: 0.5s") + "    owner: x\n", encoding="utf-8"
    )
    _, out, _ = here("lint", str(catalog))
    assert (
        f"{catalog}:4: warning tight-objective: finish_within of model 'churn' is 0.5s, and of its last 59 runs" in out
    )
    assert "not compared" not in out
    _, out, _ = here("lint", str(catalog), "--no-history")
    assert "tight-objective" not in out
    assert "objectives are not compared with the past: not looked at" in out


def test_a_ledger_that_does_not_answer_keeps_nothing_else_back(here, catalog):
    code, out, err = here("lint", str(catalog), BATCHOBS_LEDGER_URL="postgresql://me@127.0.0.1:1/runs")
    assert (code, err) == (1, "")
    assert "objectives are not compared with the past: ledger postgresql://me@127.0.0.1:1/runs" in out


def test_on_a_terminal_it_is_a_table(catalog, tmp_path):
    main, worker = pty.openpty()
    environ = {**os.environ, "COLUMNS": "100", "BATCHOBS_STATE_DIR": str(tmp_path), "HOME": str(tmp_path)}
    command = [Path(sys.executable).with_name("batchobs"), "lint", str(catalog)]
    process = subprocess.Popen(command, stdout=worker, env=environ)
    os.close(worker)
    said = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:
            break
        if not part:
            break
        said += part
    os.close(main)
    assert process.wait(60) == 1
    text = said.decode()
    for word in ("SEVERITY", "missing-owner", "\x1b[1;31merror", "OWNER", "team-risk", "projected custom metrics"):
        assert word in text
