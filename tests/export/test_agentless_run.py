"""A cron job on a host that has an API key and nothing else: what reaches Datadog, and what is seen of the key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.export.otlp_intake import serving
from tests.live import wait_until

BATCHOBS = Path(sys.executable).with_name("batchobs")
WITHIN_S = 60
JOB = """
import json
from pathlib import Path
from batch_observability import current_run

run = current_run()
with run.stage("load"):
    run.rows(read=48_210)
# What every user of the host sees.
print(json.dumps([path.read_bytes().decode("utf-8", "replace") for path in Path("/proc").glob("[0-9]*/cmdline")]))
"""


@pytest.fixture
def intake():
    with serving() as started:
        yield started


@pytest.fixture
def job(intake, tmp_path):
    """Return a function that runs the job with nothing in its environment but what a crontab gives it, and the key."""

    def run(**variables):
        environ = {
            **{name: value for name, value in os.environ.items() if name.startswith("COV")},
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "BATCHOBS_STATE_DIR": str(tmp_path / "state"),
            "BATCHOBS_AGENTLESS": "true",
            "BATCHOBS_AGENTLESS_URL": intake.url,
            **intake.environ,
            **variables,
        }
        command = [BATCHOBS, "run", "--model", "flights", "--owner", "team-flights", "--", sys.executable, "-c", JOB]
        return subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, timeout=90, check=False)

    return run


def test_a_job_with_a_key_and_nothing_else_is_seen_at_datadog(intake, job, tmp_path):
    done = job()
    assert done.returncode == 0, done.stderr.decode()
    wait_until(
        lambda: intake.count("batch_model.run.finished"), "the run is counted", WITHIN_S, lambda: intake.requests
    )
    wait_until(lambda: intake.spans and intake.logs, "the run is told", WITHIN_S, lambda: intake.requests)
    (run,) = [span for span in intake.spans if span["name"] == "batch_model.run"]
    assert run["attributes"]["batch_model.rows.read"] == 48_210
    assert run["attributes"]["batch_model.outcome"] == "success"
    (stage,) = [span for span in intake.spans if span["name"] == "batch_model.stage"]
    assert stage["trace_id"] == run["trace_id"]
    tags = {"outcome": "success", "model": "flights", "owner": "team-flights", "source": "cron"}
    assert intake.count("batch_model.run.finished", **tags) == 1
    assert "batch model run finished" in {record["body"] for record in intake.logs}
    wait_until(lambda: not list((tmp_path / "state" / "spool").glob("*/*.jsonl")), "nothing waits", WITHIN_S)
    # Neither in a process's arguments, nor on disk, nor in what is printed.
    arguments = json.loads(done.stdout)
    assert any("batchobs" in one for one in arguments)
    texts = [path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert not [text for text in (*texts, done.stdout, done.stderr) if intake.key.encode() in text]


def test_what_is_refused_waits_and_goes_with_the_next_run(intake, job, tmp_path):
    intake.statuses = {signal: [403] * 100 for signal in ("traces", "metrics", "logs")}
    assert job(BATCHOBS_RETRY_FOR="0.1").returncode == 0
    wait_until(lambda: len(intake.requests) >= 3, "the intake was asked", WITHIN_S)
    spooled = tmp_path / "state" / "spool" / "agentless"
    wait_until(lambda: len(list(spooled.glob("*.jsonl"))) >= 3, "all waits", WITHIN_S)
    reason = wait_until(lambda: (spooled / "reason.txt").exists() and (spooled / "reason.txt").read_text(), "why", 20)
    assert "check DD_API_KEY, and DD_SITE, which it belongs to" in reason
    intake.statuses = {}
    assert job().returncode == 0
    done = "batch_model.run.finished"
    wait_until(lambda: intake.count(done) == 2, "both are counted", WITHIN_S, lambda: (intake.values, intake.requests))
    wait_until(lambda: len([s for s in intake.spans if s["name"] == "batch_model.run"]) == 2, "both", WITHIN_S)
    assert intake.overwritten == []
