"""A run whose sidecar is killed: real processes, and what the next sidecar makes of it."""

from __future__ import annotations

import json

import pytest

from tests.live import wait_until
from tests.live.processes import is_over
from tests.sidecar.frames import log_lines
from tests.sidecar.ledger_rows import rows

QUICK = {"BATCHOBS_SAMPLE_INTERVAL": "0.1"}


@pytest.fixture
def journal(state):
    """Return the state of the journal of a run; nothing if there is none."""

    def of(observed):
        try:
            return json.loads((state / "runs" / f"{observed.service}.json").read_text("utf-8"))
        except FileNotFoundError:
            return {}

    return of


@pytest.fixture
def known(journal):
    """Wait until a run has ended a stage, and its only sidecar has that on disk, and has told the start."""

    def until(observed, stage, *, start_told=True):
        def seen():
            entry = journal(observed)
            stages = entry.get("observation", {}).get("stages", {}).values()
            ended = any(one["name"] == stage and one["end_ns"] for one in stages)
            return ended and entry["start_told"] == start_told and len(observed.sidecars()) == 1

        wait_until(seen, f"{stage} is in the journal", 30, lambda: journal(observed), every=0.02)

    return until


def kill_sidecars(observed):
    sidecars = observed.sidecars()
    assert sidecars
    for sidecar in sidecars:
        sidecar.kill()
    # Its command line goes first, its end of the socket later.
    wait_until(lambda: all(map(is_over, sidecars)), "the sidecar is gone", 10, every=0.02)


@pytest.fixture
def counted(dogstatsd):
    """Return how often a run was counted under a name."""

    def of(name, observed):
        found = dogstatsd.metrics(f"batch_model.run.{name}")
        return sum(metric.value for metric in found if metric.tag("service") == observed.service)

    return of


@pytest.fixture
def stages(agent):
    """Return the stages of a run by their names."""

    def of(run):
        return {s["resource"]: s for s in agent.spans("batch_model.stage") if s["trace_id"] == run["trace_id"]}

    return of


@pytest.fixture
def killed_twice(observe, known):
    """Return a run that has ended well, in three steps, and whose sidecar was killed after the first and the second."""
    observed = observe("steps", **QUICK)
    for number in (1, 2):
        observed.step()
        known(observed, f"step {number}")
        kill_sidecars(observed)
    observed.step()
    known(observed, "step 3")
    observed.tell()
    assert observed.wait() == 0
    return observed


def test_the_next_frame_starts_another_sidecar_which_goes_on_with_all_that_was_known(
    killed_twice, run_span, stages, counted, state
):
    run = run_span(killed_twice)
    assert run["meta"]["batch_model.outcome"] == "success"
    assert run["metrics"]["batch_model.rows.read"] == 3
    assert "batch_model.phases" not in run["metrics"]
    found = stages(run)
    assert set(found) == {"all", "step 1", "step 2", "step 3"}
    assert {s["parent_id"] for name, s in found.items() if name != "all"} == {found["all"]["span_id"]}
    assert not any(span.get("error") for span in found.values())
    assert [(row["run_id"], row["outcome"]) for row in rows(state)] == [(killed_twice.service, "success")]
    assert (counted("started", killed_twice), counted("finished", killed_twice)) == (1, 1)
    assert len(log_lines(state)) == 1
    assert list((state / "runs").iterdir()) == []


def test_a_sidecar_that_dies_before_it_told_the_start_leaves_that_to_the_next(observe, run_span, counted):
    observed = observe("steps", BATCHOBS_SAMPLE_INTERVAL="60")
    observed.sidecar()
    kill_sidecars(observed)
    observed.step()
    observed.tell()
    assert observed.wait() == 0
    assert run_span(observed)["meta"]["batch_model.outcome"] == "success"
    assert counted("started", observed) == 1


def test_a_process_that_dies_after_its_sidecar_did_is_left_to_the_second_layer(observe, state, journal, known):
    observed = observe("steps", **QUICK)
    observed.step()
    known(observed, "step 1")
    kill_sidecars(observed)
    observed.popen.kill()
    observed.wait()
    assert journal(observed)["pid"] == observed.pid
    assert [row["outcome"] for row in rows(state)] == [None]
    assert log_lines(state) == []


@pytest.mark.thorough
def test_a_sidecar_that_dies_while_its_child_tells_the_start_is_missed_all_the_same(observe, state, silent):
    away = {"DD_TRACE_AGENT_URL": f"http://127.0.0.1:{silent}", "DD_DOGSTATSD_URL": f"unix://{state}/nowhere"}
    observed = observe("steps", BATCHOBS_RETRY_FOR="120", **QUICK, **away)
    sidecar = observed.sidecar()
    started = "spool/datadog/*-started.*"
    wait_until(lambda: list(state.glob(started)), "a child tells the start", 20, observed.sidecars, every=0.01)
    sidecar.kill()
    sidecar.wait(20)
    observed.step()
    observed.tell()
    assert observed.wait() == 0
    wait_until(lambda: log_lines(state), "the run is told", 30, observed.sidecars, every=0.05)


@pytest.mark.parametrize("ends_at_once", [False, True], ids=["", "and ends before the next sidecar has come"])
def test_a_run_that_closes_all_descriptors_and_goes_on_has_one_sidecar_and_one_outcome(
    observe, run_span, state, ends_at_once
):
    observed = observe("closes all descriptors and goes on", **QUICK)
    first = observed.sidecar()
    observed.step()
    wait_until(lambda: observed.said().get("went_on"), "it went on", 20, every=0.005)
    if not ends_at_once:
        wait_until(lambda: first not in observed.sidecars(), "the next has come", 20, observed.sidecars, every=0.05)
    observed.tell()
    assert observed.wait() == 0
    run = run_span(observed)
    assert run["meta"]["batch_model.outcome"] == "success"
    assert run["metrics"]["batch_model.rows.read"] == 111
    assert [row["outcome"] for row in rows(state)] == ["success"]
    assert list((state / "runs").iterdir()) == []


def test_a_process_that_is_asked_to_end_and_then_killed_was_stopped(observe, run_span, state, journal):
    observed = observe("refuses to end", **QUICK)
    wait_until(lambda: observed.said().get("ready"), "it is ready", 20, every=0.02)
    observed.popen.terminate()
    wait_until(lambda: journal(observed).get("observation", {}).get("asked_to_end"), "it was asked", 20, every=0.02)
    observed.popen.kill()
    observed.wait()
    meta = run_span(observed)["meta"]
    assert (meta["batch_model.outcome"], meta["error.type"]) == ("cancelled", "Cancelled")
    assert meta["batch_model.stage"] == "load"
    assert [row["outcome"] for row in rows(state)] == ["cancelled"]
