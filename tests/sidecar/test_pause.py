"""A run that is deferred or rescheduled: several processes and observers, one run, with a stage for each of them."""

from __future__ import annotations

import os

import pytest

from batch_observability.channel import ACK
from batch_observability.sidecar.journal import run_ids
from tests.live import wait_until
from tests.sidecar.frames import START_NS, at, context, end, rows, spooled, stage, stage_end, start
from tests.sidecar.in_process import killed, observe, phase, started
from tests.sidecar.ledger_rows import rows as ledger_rows

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
    # An observer watches as long as pytest lives, where a test gets its frames wrong.
    pytest.mark.timeout(60),
]
RESUMED_AT = 500
# Name, outer stage, begin and end in seconds from the start of the run.
TREE = [
    ("phase", "batch_model.run", 0, 3),
    ("ask", "phase", 1, 2),
    ("waiting", "batch_model.run", 3, RESUMED_AT),
    ("phase", "batch_model.run", RESUMED_AT, 510),
    ("take", "phase", 501, 502),
]


def resumed(**values):
    return context(start_ns=at(RESUMED_AT), resumed=True, **values)


def first_phase(state):
    return (
        start(os.getpid(), state, context(due_ns=at(-60))),
        *(stage(1, "ask", 1), stage_end(1, 2), rows(9, 5)),
        {"t": "pause", "ts": at(3)},
    )


def second_phase(state, pid=None):
    return (
        start(pid or os.getpid(), state, resumed()),
        *(stage(2, "take", RESUMED_AT + 1), stage_end(2, RESUMED_AT + 2), rows(9, 7)),
    )


def named(span):
    return span["attributes"]["resource.name"] if span["name"] == "batch_model.stage" else span["name"]


def tree(state):
    """Return the stages as TREE has them, in the order of their beginning."""
    spans = spooled(state, "traces")
    names = {span["spanId"]: named(span) for span in spans}
    found = [
        (
            named(span),
            names[span["parentSpanId"]],
            *((int(span[key]) - START_NS) / 1e9 for key in ("startTimeUnixNano", "endTimeUnixNano")),
        )
        for span in spans
        if span["name"] == "batch_model.stage"
    ]
    assert len(names) == len(spans), "two spans have one id"
    return sorted(found, key=lambda found: (found[2], found[1] != "batch_model.run"))


def told(state):
    (run,) = (span for span in spooled(state, "traces") if span["name"] == "batch_model.run")
    return run


def test_a_run_that_pauses_goes_on_in_another_process_as_one_run(state):
    phase(*first_phase(state), separate=True)
    assert list(run_ids(state)) == ["0199-run"]
    assert spooled(state, "traces") == []
    phase(*second_phase(state), end(seconds=510), separate=True)
    assert list(run_ids(state)) == []
    run = told(state)
    assert (int(run["startTimeUnixNano"]), int(run["endTimeUnixNano"])) == (START_NS, at(510))
    assert run["attributes"]["batch_model.rows.read"] == 12
    assert run["attributes"]["batch_model.phases"] == 2
    assert run["attributes"]["batch_model.waiting_time"] == RESUMED_AT - 3
    assert tree(state) == TREE
    wait_until(lambda: started(state) == 1, "the start is told", 20, lambda: spooled(state, "metrics"), every=0.02)


def test_the_delay_of_the_start_is_that_of_the_first_process(state):
    phase(*first_phase(state))
    phase(*second_phase(state), end(seconds=510))
    (delay,) = (metric for metric in spooled(state, "metrics") if metric["name"] == "batch_model.run.start_delay")
    assert str(delay).count("60.0") >= 1


def test_a_run_that_never_paused_has_no_phases(state):
    phase(start(os.getpid(), state), stage(1, "ask", 1), stage_end(1, 2), end())
    assert tree(state) == [("ask", "batch_model.run", 1, 2)]
    assert {"batch_model.phases", "batch_model.waiting_time"}.isdisjoint(told(state)["attributes"])


def test_a_run_that_pauses_is_open_in_the_ledger_with_all_that_another_host_needs(state):
    phase(*first_phase(state))
    (row,) = ledger_rows(state)
    assert (row["outcome"], row["paused_ns"], row["pid"]) == (None, at(3), os.getpid())
    assert '"ask"' in row["state"]
    phase(*second_phase(state), end(seconds=510))
    (row,) = ledger_rows(state)
    assert (row["outcome"], row["paused_ns"], row["state"]) == ("success", None, None)
    assert (row["rows_read"], row["waiting_s"]) == (12, RESUMED_AT - 3)
    assert {stage["name"] for stage in ledger_rows(state, "stages")} == {"phase", "waiting", "ask", "take"}


def test_on_another_host_a_run_goes_on_from_the_ledger(state):
    phase(*first_phase(state))
    (state / "runs" / "0199-run.json").unlink()
    phase(*second_phase(state), end(seconds=510))
    assert tree(state) == TREE
    assert told(state)["attributes"]["batch_model.rows.read"] == 12
    assert started(state) == 1


def test_a_run_that_is_killed_after_it_has_gone_on_says_so_of_its_last_process(state, pair, child):
    popen, pidfd = child
    phase(*first_phase(state))
    killed(popen, pair, pidfd, *second_phase(state, popen.pid), stage(3, "publish", RESUMED_AT + 3))
    run = told(state)
    assert (run["attributes"]["batch_model.outcome"], run["attributes"]["batch_model.stage"]) == ("killed", "publish")
    assert run["attributes"]["batch_model.phases"] == 2
    errors = {
        (span["attributes"]["resource.name"], span["attributes"].get("error.type", ""))
        for span in spooled(state, "traces")
        if span["name"] == "batch_model.stage"
    }
    assert errors == {
        *(("phase", ""), ("phase", "SIGKILL"), ("ask", ""), ("waiting", "")),
        *(("take", ""), ("publish", "SIGKILL")),
    }
    assert [row["outcome"] for row in ledger_rows(state)] == ["killed"]


def test_a_run_that_pauses_in_a_thread_tells_its_start_too(state):
    phase(start(os.getpid(), state), {"t": "pause", "ts": at(3)})
    phase(start(os.getpid(), state, context(resumed=True)), end(seconds=510))
    assert started(state) == 1


def test_a_run_that_paused_where_nobody_could_tell_goes_on_without_its_past(pair, state):
    observe(pair, start(os.getpid(), state, resumed()), rows(1, 7), end(seconds=510))
    attributes = told(state)["attributes"]
    assert (attributes["batch_model.rows.read"], attributes["batch_model.phases"]) == (7, 2)
    assert started(state) == 0
    assert list(run_ids(state)) == []


@pytest.mark.parametrize("text", ["{", "{}", '{"observation": {}}', "\x00\x00"])
def test_what_was_known_and_cannot_be_used_is_told_and_does_not_cost_the_run(pair, state, text, caplog):
    journal = state / "runs" / "0199-run.json"
    journal.parent.mkdir(parents=True)
    journal.write_text(text)
    observe(pair, start(os.getpid(), state, resumed()), rows(1, 7), end(seconds=510))
    attributes = told(state)["attributes"]
    assert (attributes["batch_model.rows.read"], attributes["batch_model.phases"]) == (7, 2)
    assert "cannot be used" in caplog.text
    assert not journal.exists()


def test_where_the_journal_cannot_be_used_the_ledger_is_asked(state):
    phase(*first_phase(state))
    (state / "runs" / "0199-run.json").write_text("{")
    phase(*second_phase(state), end(seconds=510))
    assert tree(state) == TREE
    assert started(state) == 1


def test_a_pause_that_cannot_be_kept_here_is_told_and_acknowledged(pair, state, caplog):
    state.mkdir()
    (state / "runs").write_text("a file in place of the folder")
    observe(pair, *first_phase(state))
    assert f"{state / 'runs' / '0199-run.json'} cannot be written" in caplog.text
    assert pair[0].recv(100) == ACK
    (row,) = ledger_rows(state)
    assert '"ask"' in row["state"]
