"""
Real processes that end in every way, and what arrives at a real agent: one run, one outcome, whatever happened.

A row of the table is a way to end; the columns are outcome, error, stage and rows of the only run span.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest

from batch_observability.sidecar.journal import run_ids
from tests.live import wait_until
from tests.sidecar.frames import log_lines, spooled
from tests.sidecar.observed import BUSY_BEFORE_S, BUSY_DURING_S, CHILD_BYTES


def patience_s():
    """Seconds in which a death is to be on disk: 2, and more where many compete for the processors."""
    return 2 * max(1, os.getloadavg()[0] / os.cpu_count())


EXIT = "the process left with exit code {} in stage parse, without an outcome"
KILL = "killed by {} in stage parse"


class Row(NamedTuple):
    """A way to end, and what is promised of it."""

    scenario: str
    status: int
    outcome: str
    error: str
    message: str
    stage: str
    rows: int | None


TABLE = [
    Row("succeeds", 0, "success", "", "", "", 100),
    Row("fails", 1, "failed", "ValueError", "no such airport", "load", 100),
    Row("SIGKILL", -9, "killed", "SIGKILL", KILL.format("SIGKILL"), "parse", 111),
    Row("SIGTERM", -15, "killed", "SIGTERM", KILL.format("SIGTERM"), "parse", 111),
    Row("segfault", -11, "killed", "SIGSEGV", KILL.format("SIGSEGV"), "parse", 111),
    Row("os._exit(0)", 0, "killed", "ProcessExit", EXIT.format(0), "parse", 111),
    Row("os._exit(3)", 3, "killed", "ProcessExit", EXIT.format(3), "parse", 111),
    Row("closes all descriptors", 0, "killed", "ProcessExit", EXIT.format(0), "parse", 111),
    Row("leaves a child", -9, "killed", "SIGKILL", KILL.format("SIGKILL"), "parse", 111),
    Row("killed at once", -9, "killed", "SIGKILL", "killed by SIGKILL", "", None),
    Row("group ended at once", -15, "killed", "SIGTERM", "killed by SIGTERM", "", None),
]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.scenario) for row in TABLE])
def test_one_run_span_tells_how_it_ended(observe, run_span, state, dogstatsd, row):
    observed = observe(row.scenario)
    assert observed.wait() == row.status
    # A child of the process may live on: the run is told all the same.
    wait_until(lambda: log_lines(state), "the wide record is on disk", patience_s() + 1, observed.said, every=0.02)
    on_disk_ns = (state / "logs" / "batch_models.jsonl").stat().st_mtime_ns
    assert on_disk_ns - observed.ended_ns < patience_s() * 1e9
    observed.tell()
    span = run_span(observed)

    meta, metrics = span["meta"], span["metrics"]
    assert meta["batch_model.outcome"] == row.outcome
    assert (meta.get("error.type", ""), meta.get("error.message", "")) == (row.error, row.message)
    assert bool(span.get("error")) == bool(row.error)
    assert meta.get("batch_model.stage", "") == row.stage
    assert metrics.get("batch_model.rows.read") == row.rows
    assert metrics["process.pid"] == observed.pid
    assert 0 < span["duration"] < 60e9
    (line,) = log_lines(state)
    assert line["batch_model.outcome"] == row.outcome
    counts = {
        name: sum(m.value for m in dogstatsd.metrics(f"batch_model.run.{name}") if m.tag("service") == observed.service)
        for name in ("started", "finished")
    }
    assert counts == {"started": 1, "finished": 1}
    killed = [event for event in dogstatsd.events() if f"service:{observed.service}" in event.tags]
    assert len(killed) == (row.outcome == "killed")
    assert list((state / "spool").rglob("*.jsonl")) == []


def test_stages_of_a_killed_run_end_with_it_and_hang_together(observe, run_span, agent):
    observed = observe("SIGKILL")
    observed.wait()
    run = run_span(observed)
    stages = {s["resource"]: s for s in agent.spans("batch_model.stage") if s["trace_id"] == run["trace_id"]}
    assert set(stages) == {"load", "parse"}
    assert stages["load"]["parent_id"] == run["span_id"]
    assert stages["parse"]["parent_id"] == stages["load"]["span_id"]
    for span in stages.values():
        assert span["error"] == 1
        assert abs(span["start"] + span["duration"] - run["start"] - run["duration"]) < 1000


@pytest.mark.parametrize("scenario", ["no process", "no shell"])
def test_where_no_process_can_be_started_a_thread_observes_and_one_line_says_so(observe, run_span, tmp_path, scenario):
    observed = observe(scenario)
    assert observed.wait() == 0
    assert observed.said()["separate"] is False
    assert observed.said()["acknowledged"] is True
    assert run_span(observed)["meta"]["batch_model.outcome"] == "success"
    (line,) = (tmp_path / "stderr-0.txt").read_text("utf-8").splitlines()
    assert line.startswith("the sidecar could not be started (")
    assert line.endswith("): observing from a thread of the task")


def test_a_shell_that_cannot_start_the_sidecar_does_not_cost_the_run(observe, state):
    observed = observe("shell cannot fork", BATCHOBS_EXPORT="spool")
    assert observed.wait() == 0
    wait_until(lambda: log_lines(state), "the run is told", 3, every=0.05)


def test_a_run_that_pauses_and_goes_on_in_another_process_is_one_run(observe, run_span, agent, dogstatsd, state):
    first = observe("pauses")
    assert first.wait() == 0
    first.wait_unobserved()
    assert list(run_ids(state)) == [first.service]
    options = {"service": first.service, "trace_id": first.trace_id, "resumed": True}
    second = observe("goes on", options)
    assert second.wait() == 0
    run = run_span(second)
    metrics = run["metrics"]
    assert (metrics["batch_model.rows.read"], metrics["batch_model.rows.written"]) == (12, 3)
    assert metrics["process.pid"] == second.pid
    stages = {s["resource"]: s for s in agent.spans("batch_model.stage") if s["trace_id"] == run["trace_id"]}
    assert set(stages) == {"phase", "waiting", "ask", "take"}
    assert metrics["batch_model.phases"] == 2
    assert metrics["batch_model.waiting_time"] == pytest.approx(stages["waiting"]["duration"] / 1e9)
    assert stages["waiting"]["parent_id"] == run["span_id"]
    assert run["start"] <= stages["ask"]["start"]
    assert run["start"] + run["duration"] >= stages["take"]["start"]

    def started():
        return [m for m in dogstatsd.metrics("batch_model.run.started") if m.tag("service") == first.service]

    assert len(wait_until(started, "the start is told", 10, every=0.05)) == 1
    assert list(run_ids(state)) == []


def test_memory_includes_that_of_a_child_process(observe, run_span):
    observed = observe("large child")
    observed.wait()
    peak = run_span(observed)["metrics"]["batch_model.memory.peak"]
    assert CHILD_BYTES < peak < CHILD_BYTES + 200_000_000


def test_cpu_is_that_of_the_run_and_not_of_the_process_before(observe, run_span):
    observed = observe("busy")
    observed.wait()
    cpu_s = run_span(observed)["metrics"]["batch_model.cpu.time"]
    assert BUSY_DURING_S <= cpu_s < BUSY_BEFORE_S


@pytest.mark.parametrize("backend", ["refused", "silent"])
def test_a_task_does_not_wait_for_a_backend_that_is_away(observe, state, silent, backend):
    port = silent if backend == "silent" else 9
    observed = observe(
        "succeeds",
        DD_TRACE_AGENT_URL=f"http://127.0.0.1:{port}",
        DD_DOGSTATSD_URL="udp://127.0.0.1:9",
        BATCHOBS_EXPORT_TIMEOUT="1",
        BATCHOBS_RETRY_FOR="1",
    )
    assert observed.wait() == 0
    said = observed.said()
    # Far below what an exporter takes to give up (3 to 21 s); the budget itself (15 and 20 ms) is for the benchmark.
    assert said["begin_s"] < 1
    assert said["end_s"] < 1
    observed.wait_unobserved()
    (run,) = [span for span in spooled(state, "traces") if span["name"] == "batch_model.run"]
    assert run["attributes"]["batch_model.outcome"] == "success"
    assert "datadog" in (state / "logs" / "observer.log").read_text("utf-8").lower()
