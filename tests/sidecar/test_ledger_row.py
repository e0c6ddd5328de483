"""The row that a run has in the ledger: open while it goes on, closed once, and never what a run waits for."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing

import pytest

from batch_observability.channel import ACK
from batch_observability.config import Settings
from batch_observability.export.deliver import Delivery
from batch_observability.export.replay import replay
from batch_observability.export.target import Choice
from batch_observability.ledger.records import Finished, Verdict
from batch_observability.sidecar import row
from batch_observability.usage import host_name
from tests.live import wait_until
from tests.sidecar.frames import START_NS, at, context, end, lines, log_lines, spooled, stage, stage_end, start
from tests.sidecar.in_process import killed, observe, observing, phase
from tests.sidecar.in_process import started as starts_counted
from tests.sidecar.ledger_rows import ledger, rows, waiting

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
    # An observer watches as long as pytest lives, where a test gets its frames wrong.
    pytest.mark.timeout(60),
]
GONE = 2**22 + 1  # above the highest pid that Linux gives
SECRET = "hunter2"
UNREACHABLE = f"postgresql://batchobs:{SECRET}@127.0.0.1:1/runs"


def of_run(state, **values):
    return Delivery(Settings(export=("spool",), state_dir=str(state), **values), Choice(("spool",), ()), 0)


def closed_by_another(token="of another"):
    run = row.run_row(context(), 1, "another-host")
    return Finished(run=run, end_ns=at(5), outcome="lost", token=token, closed_by="scheduler")


# --- Open, then closed ----------------------------------------------------------------------------------------------


def test_a_run_is_open_in_the_ledger_from_the_first_look_to_its_end(pair, child, state):
    ours, theirs = pair
    popen, pidfd = child
    with observing(theirs, pidfd):
        ours.sendall(lines(start(popen.pid, state, sample_interval=0.05)))
        (begun,) = wait_until(lambda: rows(state), "the row is there", 20, every=0.02)
        assert (begun["run_id"], begun["outcome"], begun["end_ns"]) == ("0199-run", None, None)
        assert (begun["start_ns"], begun["host"], begun["pid"]) == (START_NS, host_name(), popen.pid)
        assert json.loads(begun["context"])["resource"] == "dag.task"
        ours.sendall(lines(stage(1, "load", 1), stage_end(1, 2), end()))
    (ended,) = rows(state)
    assert (ended["outcome"], ended["end_ns"], ended["closed_by"]) == ("success", at(10), "sidecar")
    assert (ended["dag_id"], ended["task_id"], ended["try_number"]) == ("dag", "task", 1)
    assert ended["context"] is None
    assert [(one["name"], one["start_ns"], one["end_ns"]) for one in rows(state, "stages")] == [("load", at(1), at(2))]
    assert starts_counted(state) == 1
    assert waiting(state) == []


def test_a_short_run_is_one_row_with_all_that_is_known_of_it(pair, state):
    error = {"type": "ValueError", "message": "no such airport", "stack": "..."}
    measured = {"t": "measure", "ts": at(2), "name": "mae", "value": 1.5, "unit": "minute"}
    observe(pair, start(GONE, state), stage(1, "load", 1), measured, end("failed", error=error, dropped=2))
    (found,) = rows(state)
    expected = {
        "outcome": "failed",
        "error_type": "ValueError",
        "error_message": "no such airport",
        "stage": "load",
        "signal": "",
        "exit_code": None,
        "rows_read": None,
        "memory_peak": 50_000_000,
        "cpu_s": 2.5,
        "dropped": 2,
        "pid": GONE,
    }
    assert {name: found[name] for name in expected} == expected
    (measurement,) = rows(state, "measurements")
    assert (measurement["name"], measurement["value"], measurement["unit"]) == ("mae", 1.5, "minute")
    (load,) = rows(state, "stages")
    assert (load["end_ns"], load["error_type"]) == (at(10), "ValueError")


def test_a_killed_run_says_its_signal(pair, child, state):
    popen, pidfd = child
    killed(popen, pair, pidfd, start(popen.pid, state))
    (found,) = rows(state)
    assert (found["outcome"], found["signal"], found["error_type"]) == ("killed", "SIGKILL", "SIGKILL")


def test_a_run_that_somebody_else_has_closed_is_not_told_again(pair, state):
    assert ledger(state).apply(closed_by_another())
    observe(pair, start(os.getpid(), state), end())
    assert [(one["outcome"], one["token"]) for one in rows(state)] == [("lost", "of another")]
    assert (spooled(state, "traces"), spooled(state, "metrics"), log_lines(state)) == ([], [], [])
    assert waiting(state) == []
    # All the same it was on disk before: the task may go.
    assert pair[0].recv(100) == ACK


# --- A ledger that is away ------------------------------------------------------------------------------------------


def test_a_ledger_that_nobody_can_reach_costs_the_run_nothing_and_hears_of_it_later(pair, state, caplog):
    ours, theirs = pair
    with observing(theirs, separate=False):
        ours.sendall(lines(start(os.getpid(), state, ledger_url=UNREACHABLE, ledger_timeout=1.0), end()))
        ours.settimeout(20)
        assert ours.recv(100) == ACK
    (run,) = spooled(state, "traces")
    assert run["attributes"]["batch_model.outcome"] == "success"
    assert len(log_lines(state)) == 1
    assert waiting(state) == ["finished"]
    assert SECRET not in caplog.text
    assert "postgresql://batchobs@127.0.0.1:1/runs" in caplog.text

    result = replay(of_run(state))
    assert (result.sent["ledger"], result.refused) == (1, {})
    assert [(one["outcome"], one["closed_by"]) for one in rows(state)] == [("success", "sidecar")]
    assert waiting(state) == []


def test_a_ledger_that_somebody_has_locked_is_tried_again_after_the_run_was_told(pair, state):
    ledger(state).migrate()
    ours, theirs = pair
    settings = {"ledger_timeout": 0.2, "retry_for": 30.0}
    with closing(sqlite3.connect(state / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with observing(theirs, separate=False):
            ours.sendall(lines(start(os.getpid(), state, **settings), end()))
            ours.settimeout(20)
            assert ours.recv(100) == ACK
            wait_until(lambda: log_lines(state), "the run is told", 20, every=0.02)
            assert waiting(state) == ["finished"]
            assert rows(state) == []
            other.execute("ROLLBACK")
    assert [one["outcome"] for one in rows(state)] == ["success"]
    assert waiting(state) == []


def test_a_ledger_that_stays_locked_keeps_the_observer_no_longer_than_the_setting_says(pair, state):
    ledger(state).migrate()
    began = time.monotonic()
    with closing(sqlite3.connect(state / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        observe(pair, start(os.getpid(), state, ledger_timeout=0.2, retry_for=0.5), end())
        other.execute("ROLLBACK")
    assert time.monotonic() - began < 10
    assert waiting(state) == ["finished"]
    assert replay(of_run(state)).sent["ledger"] == 1
    assert [one["outcome"] for one in rows(state)] == ["success"]


def test_of_an_ending_that_came_too_late_the_signals_are_not_sent_by_a_replay(pair, state):
    """Its ledger was away; meanwhile the scheduler's helper closed the run there, and told it."""
    observe(pair, start(os.getpid(), state, ledger_url=UNREACHABLE, ledger_timeout=1.0), end())
    assert ledger(state).apply(closed_by_another())
    assert replay(of_run(state)).untold == 1
    assert [one["outcome"] for one in rows(state)] == ["lost"]
    assert (waiting(state), spooled(state, "traces")) == ([], [])


def test_the_next_sidecar_on_the_host_brings_what_waits_into_the_ledger(pair, state):
    observe(pair, start(os.getpid(), state, ledger_url=UNREACHABLE, ledger_timeout=1.0), end())
    assert waiting(state) == ["finished"]
    phase(start(os.getpid(), state, context(run_id="next")), end("skipped"), separate=True)
    assert {one["run_id"]: one["outcome"] for one in rows(state)} == {"0199-run": "success", "next": "skipped"}
    assert waiting(state) == []


# --- What the ledger knows of the end -------------------------------------------------------------------------------


def judge(state, outcome):
    known = ledger(state)
    known.apply(row.started(context(), 1, "host"))
    assert known.apply(Verdict(outcome=outcome, reason="so they say", time_ns=1, run_id="0199-run"))


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        ("timed_out", ("timed_out", "TimedOut")),
        ("cancelled", ("cancelled", "Cancelled")),
        ("lost", ("killed", "SIGKILL")),
        ("killed", ("killed", "SIGKILL")),
    ],
)
def test_a_run_that_is_made_to_end_ends_as_somebody_said_who_knows(pair, child, state, verdict, told):
    judge(state, verdict)
    popen, pidfd = child
    killed(popen, pair, pidfd, start(popen.pid, state))
    (run,) = spooled(state, "traces")
    attributes = run["attributes"]
    assert (attributes["batch_model.outcome"], attributes["error.type"]) == told
    assert attributes["batch_model.signal"] == "SIGKILL"
    assert [(one["outcome"], one["error_type"]) for one in rows(state)] == [told]


@pytest.mark.parametrize(("asked", "outcome"), [(True, "cancelled"), (False, "failed")])
def test_a_run_that_tells_its_end_is_believed_unless_it_was_asked_to_end(pair, state, asked, outcome):
    judge(state, "cancelled")
    frames = [{"t": "asked_to_end", "ts": at(9), "killed_after_s": 5.0}] if asked else []
    observe(pair, start(os.getpid(), state), *frames, end("failed"))
    (line,) = log_lines(state)
    assert line["batch_model.outcome"] == outcome
    assert [one["outcome"] for one in rows(state)] == [outcome]


def test_where_the_ledger_cannot_be_asked_a_killed_run_is_killed(pair, child, state, caplog):
    popen, pidfd = child
    killed(popen, pair, pidfd, start(popen.pid, state, ledger_url=UNREACHABLE, ledger_timeout=1.0))
    (line,) = log_lines(state)
    assert line["batch_model.outcome"] == "killed"
    assert SECRET not in caplog.text
