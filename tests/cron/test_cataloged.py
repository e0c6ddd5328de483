"""`batchobs run` and `observe` take from the catalog what they are not told themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.cron.jobs import finished, run, state

TEXT = """\
owners: {team-risk: {oncall: "@slack-risk"}}
models:
  - name: churn
    version: 1.10
    service: scoring
    owner: team-risk
    tier: 1
    runbook: https://example.com/churn
    sla: {finish_within: 20m, min_rows: 5}
    schedule: "@daily"
    timezone: Europe/London
    timeout: 1s
    grace: 1s
    overlap: skip
    retries: 1
    env_file: %s
    instrument: false
"""


@pytest.fixture(autouse=True)
def catalog(tmp_path, monkeypatch):
    """The catalog of this host."""
    (tmp_path / "churn.env").write_text("COLOUR=red\n")
    path = tmp_path / "batch_models.yaml"
    path.write_text(TEXT % (tmp_path / "churn.env"))
    monkeypatch.setenv("BATCHOBS_CATALOG", str(path))
    return path


def known():
    (file,) = (state() / "jobs").iterdir()
    return json.loads(file.read_text())


def test_a_job_is_run_as_the_catalog_says():
    done = run("--model", "churn", "--", "sh", "-c", 'echo "$COLOUR"; exit 3')
    assert (done.returncode, done.stdout) == (3, b"red\nred\n")
    told = finished(2)[-1]
    expected = {"version": "1.10", "owner": "team-risk", "tier": "1", "objective.finish_within": "20m"}
    assert {key: told[f"batch_model.{key}"] for key in expected} == expected
    assert told["dd.service"] == "scoring"
    assert (known()["schedule"], known()["timezone"]) == ("@daily", "Europe/London")


def test_the_name_of_the_script_is_enough(tmp_path):
    script = tmp_path / "churn.sh"
    script.write_text("#!/bin/sh\nsleep 30\n")
    script.chmod(0o755)
    done = run("--retries", "0", "--", str(script))
    assert done.returncode == 124
    (told,) = finished()
    assert (told["batch_model.name"], told["batch_model.owner"]) == ("churn", "team-risk")


def test_options_go_before_the_catalog(tmp_path):
    (tmp_path / "other.env").write_text("COLOUR=blue\n")
    options = ["--owner", "team-me", "--tier", "3", "--retries", "0", "--env-file", str(tmp_path / "other.env")]
    more = ["--schedule", "@hourly", "--sla-min-rows", "7", "--timeout", "1h"]
    done = run("--model", "churn", *options, *more, "--", "sh", "-c", 'echo "$COLOUR"; exit 3')
    assert (done.returncode, done.stdout) == (3, b"blue\n")
    (told,) = finished()
    expected = {"owner": "team-me", "tier": "3", "version": "1.10", "objective.min_rows": "7"}
    assert {key: str(told[f"batch_model.{key}"]) for key in expected} == expected
    # A schedule is meant in the zone that it is given with.
    assert (known()["schedule"], known()["timezone"]) == ("@hourly", "")


def test_a_job_that_the_catalog_does_not_have_is_run_as_before():
    assert run("--model", "other", "--", "true").returncode == 0
    assert finished()[0]["batch_model.version"] == "0"


@pytest.mark.parametrize("text", ["models: [", "models: [{name: churn, tier: 0}]", "models: [{name: a}, {name: a}]"])
def test_a_broken_catalog_harms_no_job(catalog, text):
    catalog.write_text(text)
    done = run("--model", "churn", "--", "echo", "out")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\n", b"")
    assert finished()[0]["batch_model.tier"] == "3"


def test_what_observes_itself_is_in_the_catalog_too():
    code = "from batch_observability import observe\nwith observe('churn', tier=2):\n    pass\n"
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_VERSION"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    (told,) = finished()
    expected = {"version": "1.10", "owner": "team-risk", "tier": "2", "objective.finish_within": "20m"}
    assert {key: told[f"batch_model.{key}"] for key in expected} == expected
