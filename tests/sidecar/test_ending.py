"""How a run ended: out of memory, stopped by Airflow, or as somebody says who knows better."""

from __future__ import annotations

import pytest

from batch_observability import schema
from batch_observability.export.signals import Error
from batch_observability.schema import Outcome
from batch_observability.sidecar import ending, loop, telling
from batch_observability.sidecar.memory import MemoryLimit
from batch_observability.sidecar.process import Death
from tests.sidecar.endings import BROKEN, HOST, PID, found_dead, observed
from tests.sidecar.frames import at, end, lines, log_lines, spooled, stage, stage_end, start
from tests.sidecar.in_process import killed, observe, observing
from tests.sidecar.ledger_rows import rows as ledger_rows

# An observer watches as long as pytest lives, where a test gets its frames wrong.
pytestmark = pytest.mark.timeout(60)
KILLED, EXITED, UNKNOWN = Death(signal="SIGKILL"), Death(exit_code=0), Death()
LOAD = stage(1, "load", 1)


def asked(seconds):
    return {"t": "asked_to_end", "ts": at(seconds), "killed_after_s": 5.0}


# --- Out of memory --------------------------------------------------------------------------------------------------


class Full(MemoryLimit):
    """A control group in which the kernel has killed; no test can make a real one without being root."""

    of_the_group: int | None = 300_000_000

    def __init__(self, pid):
        super().__init__(pid)
        self.limit = self.of_the_group

    def killed_by_oom(self):
        return True

    def peak(self):
        return 299_000_000


def test_a_run_that_the_out_of_memory_killer_took_says_so_with_peak_and_limit(pair, child, state, monkeypatch):
    monkeypatch.setattr(loop, "MemoryLimit", Full)
    popen, pidfd = child
    killed(popen, pair, pidfd, start(popen.pid, state), LOAD)
    run, load = spooled(state, "traces")
    message = "killed by the out-of-memory killer in stage load: memory peak 299 MB, limit 300 MB"
    attributes = run["attributes"]
    assert (attributes["batch_model.outcome"], attributes["error.type"]) == ("killed", "OutOfMemory")
    assert (attributes["error.message"], attributes["batch_model.stage"]) == (message, "load")
    assert attributes["batch_model.memory.peak"] == 299_000_000
    assert attributes["batch_model.memory.limit"] == 300_000_000
    assert load["attributes"]["error.type"] == "OutOfMemory"
    (event,) = spooled(state, "events")
    assert message in str(event)
    (row,) = ledger_rows(state)
    assert (row["outcome"], row["error_type"], row["memory_limit"]) == ("killed", "OutOfMemory", 300_000_000)


def test_a_host_that_ran_out_of_memory_has_no_limit_to_tell(pair, child, state, monkeypatch):
    monkeypatch.setattr(loop, "MemoryLimit", type("Unlimited", (Full,), {"of_the_group": None}))
    popen, pidfd = child
    killed(popen, pair, pidfd, start(popen.pid, state))
    (run,) = spooled(state, "traces")
    assert run["attributes"]["error.message"].endswith("memory peak 299 MB, limit that of the host")
    assert schema.MEMORY_LIMIT not in run["attributes"]


def test_a_kill_in_the_group_that_was_of_another_process_is_not_this_ones_cause(pair, child, state, monkeypatch):
    monkeypatch.setattr(loop, "MemoryLimit", Full)
    popen, pidfd = child
    with observing(pair[1], pidfd):
        pair[0].sendall(lines(start(popen.pid, state)))
        popen.stdin.close()
        popen.wait()
    (run,) = spooled(state, "traces")
    assert run["attributes"]["error.type"] != "OutOfMemory"


def test_a_run_that_ends_well_says_its_limit_and_no_more(pair, state, monkeypatch):
    monkeypatch.setattr(loop, "MemoryLimit", Full)
    observe(pair, start(PID, state), end())
    (line,) = log_lines(state)
    assert (line["batch_model.outcome"], line["batch_model.memory.limit"]) == ("success", 300_000_000)


# --- Stopped by Airflow ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "death", "outcome"),
    [
        (12.0, KILLED, "cancelled"),
        (11.6, KILLED, "cancelled"),
        (14.9, KILLED, "cancelled"),
        # By somebody else: Airflow waits for 5 s.
        (11.4, KILLED, "killed"),
        (15.1, KILLED, "killed"),
        (12.0, Death(signal="SIGTERM"), "killed"),
        (12.0, EXITED, "killed"),
        (12.0, UNKNOWN, "killed"),
    ],
)
def test_who_is_asked_to_end_and_killed_5_s_later_was_stopped(seconds, death, outcome):
    _, found = found_dead(LOAD, asked(7), death=death, seconds=seconds)
    assert found.outcome == outcome
    if outcome == "cancelled":
        assert found.error.type == "Cancelled"
        assert found.error.message.startswith("stopped in stage load by Airflow, which no longer wanted it")
        assert found.death == death


def test_who_ran_out_of_memory_while_it_was_asked_to_end_was_not_stopped():
    _, found = found_dead(asked(7), seconds=12, out_of_memory="memory peak 1 MB, limit 1 MB")
    assert (found.outcome, found.error.type) == ("killed", "OutOfMemory")


def test_a_run_that_was_stopped_is_no_event_for_nobody_has_to_act():
    batch = telling.finished(*found_dead(asked(5), seconds=10), host=HOST, with_start=True)
    assert batch.events == ()
    assert batch.spans[0].attributes[schema.SIGNAL] == "SIGKILL"


# --- Somebody knows better ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "death", "outcome", "error"),
    [
        ("timed_out", KILLED, "timed_out", Error("TimedOut", "so they say (in stage load)")),
        ("cancelled", KILLED, "cancelled", Error("Cancelled", "so they say (in stage load)")),
        ("cancelled", None, "cancelled", Error("Cancelled", "so they say (in stage load)")),
        ("lost", UNKNOWN, "lost", Error("Lost", "so they say (in stage load)")),
        ("killed", UNKNOWN, "killed", Error("Killed", "so they say (in stage load)")),
        # The system says it firsthand.
        ("lost", KILLED, "killed", Error("SIGKILL", "killed by SIGKILL in stage load")),
        ("killed", Death(signal="SIGSEGV"), "killed", Error("SIGSEGV", "killed by SIGSEGV in stage load")),
        ("skipped", KILLED, "skipped", None),
        ("failed", KILLED, "failed", Error("Error", "so they say (in stage load)")),
    ],
)
def test_what_somebody_said_beforehand_counts_unless_the_system_knows_better(known, death, outcome, error):
    if death is None:
        run = observed(LOAD, end("failed", error=BROKEN))
        found = ending.told(run, PID)
    else:
        run, found = found_dead(LOAD, death=death)
    judged = ending.judged(run, found, known, "so they say")
    assert (judged.outcome, judged.error, judged.death, judged.end_ns) == (outcome, error, found.death, found.end_ns)


def test_outside_of_a_stage_a_reason_stands_alone():
    run, found = found_dead(LOAD, stage_end(1, 2))
    assert ending.judged(run, found, "timed_out", "too long").error == Error("TimedOut", "too long")


@pytest.mark.parametrize("outcome", [outcome.value for outcome in Outcome])
def test_every_outcome_may_be_said_beforehand(outcome):
    run, found = found_dead(death=UNKNOWN)
    judged = ending.judged(run, found, outcome, "so they say")
    assert judged.outcome == outcome
    assert (judged.error is not None) == (judged.outcome in schema.ERRORS)
