"""The clock of a run: real processes that are late, and what is told of it, when, and how often."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.live import wait_until
from tests.sidecar.frames import log_lines
from tests.sidecar.ledger_rows import rows

RISK, BROKEN, AGAIN = (
    "batch model objective at risk",
    "batch model objective breached",
    "batch model objective recovered",
)


@pytest.fixture
def promises(state):
    """Return what the ledger has of promises."""

    def of():
        return sorted(rows(state, "promises"), key=lambda row: row["key"])

    return of


@pytest.fixture
def told(state):
    """Return what the log says of promises: event and objective, with the time at which it was said."""

    def of(observed):
        lines = [line for line in log_lines(state) if line["dd.service"] == observed.service]
        return [(line["event"], line["batch_model.sla.objective"]) for line in lines if "objective" in line["event"]]

    return of


@pytest.fixture
def counted(dogstatsd):
    """Return how often something was counted for an objective of a run."""

    def of(name, observed):
        found = dogstatsd.metrics(f"batch_model.sla.{name}")
        return sum(metric.value for metric in found if metric.tag("service") == observed.service)

    return of


def broken(promises):
    return any(row["breached_ns"] for row in promises())


def test_a_run_that_takes_too_long_is_at_risk_and_then_broken_while_it_goes_on(observe, promises, told, counted):
    observed = observe("steps", {"objectives": {"finish_within": "3s"}, "terms": {"warn_at": "0.5"}})
    wait_until(lambda: broken(promises), "it is broken", 20, told, every=0.02)
    seen = time.time()
    (row,) = promises()
    assert row["breached_ns"] - row["at_risk_ns"] == 1_500_000_000
    assert seen - row["breached_ns"] / 1e9 < 5
    assert observed.popen.poll() is None
    observed.tell()
    assert observed.wait() == 0
    observed.wait_unobserved()
    assert sorted(told(observed)) == sorted(
        [(RISK, "finish_within"), (BROKEN, "finish_within"), (AGAIN, "finish_within")]
    )
    assert [counted(name, observed) for name in ("at_risk", "breached", "checked")] == [1, 1, 1]
    (row,) = promises()
    assert row["margin_s"] < 0
    assert row["recovered_ns"]


def test_a_run_in_time_is_checked_once_and_told_nowhere(observe, promises, told, counted, run_span):
    observed = observe("succeeds", {"objectives": {"finish_within": "1h", "min_rows": "50"}})
    meta = run_span(observed)
    assert meta["meta"]["batch_model.sla.finish_within"] == "met"
    assert meta["meta"]["batch_model.sla.min_rows"] == "met"
    assert 3590 < meta["metrics"]["batch_model.sla_margin.finish_within"] <= 3600
    assert promises() == []
    assert told(observed) == []
    assert [counted(name, observed) for name in ("at_risk", "breached", "checked")] == [0, 0, 2]


def test_a_run_that_holds_the_interpreter_is_told_in_time_all_the_same(observe, promises):
    observed = observe("holds the interpreter", {"objectives": {"finish_within": "2s"}})
    observed.popen.stdin.write(b"20\n")
    observed.popen.stdin.flush()
    wait_until(lambda: observed.said().get("held"), "it holds the interpreter", 20, every=0.02)
    wait_until(lambda: broken(promises), "it is broken", 15, every=0.05)
    assert observed.popen.poll() is None
    assert time.time() - promises()[0]["breached_ns"] / 1e9 < 5
    assert promises()[0]["reason"].endswith("in stage native")


def test_a_run_that_is_suspended_is_told_in_time_all_the_same(observe, promises):
    observed = observe("steps", {"objectives": {"finish_within": "2s"}})
    observed.sidecar()
    os.kill(observed.pid, signal.SIGSTOP)
    wait_until(lambda: broken(promises), "it is broken", 15, every=0.05)
    assert time.time() - promises()[0]["breached_ns"] / 1e9 < 5


def test_a_run_that_began_too_late_says_so_at_once(observe, promises, told):
    due_ns = time.time_ns() - 600 * 10**9
    observed = observe("steps", {"objectives": {"start_within": "5m"}, "due_ns": due_ns})
    wait_until(lambda: broken(promises), "it is broken", 20, every=0.05)
    (row,) = promises()
    assert row["objective"] == "start_within"
    assert row["breached_ns"] == due_ns + 300 * 10**9
    assert row["reason"].startswith("started 5m")
    observed.tell()
    observed.wait()
    observed.wait_unobserved()
    assert [event for event, _ in told(observed)].count(BROKEN) == 1


def test_time_that_is_granted_moves_the_promise_and_is_visible(observe, promises, run_span, state):
    observed = observe("extends", {"objectives": {"finish_within": "4s"}, "terms": {"warn_at": "1"}})
    observed.sidecar()
    observed.popen.stdin.write(b"20m\n")
    observed.popen.stdin.flush()
    wait_until(lambda: observed.said().get("extended"), "it was extended", 20, every=0.02)

    wait_until(lambda: [row["extended_s"] for row in rows(state)] == [1200], "the ledger has it", 20, every=0.05)
    started = rows(state)[0]["start_ns"] / 1e9
    wait_until(lambda: time.time() - started > 5, "what was promised first is over", 10)
    observed.tell()
    assert observed.wait() == 0
    span = run_span(observed)
    assert promises() == []
    assert span["metrics"]["batch_model.sla.extended"] == 1200
    assert span["meta"]["batch_model.sla.finish_within"] == "met"
    said = [line for line in log_lines(state) if line["event"] == "batch model objective extended"]
    assert [line["batch_model.sla.reason"] for line in said] == ["20m in all: a large month"]


def test_what_a_run_did_is_judged_at_its_end(observe, promises, told, counted, run_span):
    objectives = {"min_duration": "1h", "min_rows": "1000", "max_rejected_ratio": "0.05"}
    observed = observe("succeeds", {"objectives": objectives})
    meta = run_span(observed)["meta"]
    assert {name: meta[f"batch_model.sla.{name}"] for name in objectives} == dict.fromkeys(objectives, "breached")
    wait_until(lambda: len(promises()) == 3, "all are in the ledger", 10, promises)
    observed.wait_unobserved()
    assert sorted(told(observed)) == sorted((BROKEN, name) for name in objectives)
    assert [counted(name, observed) for name in ("breached", "checked")] == [3, 3]
    assert {row["objective"]: row["reason"] for row in promises()}["min_rows"] == "wrote 90 rows"
