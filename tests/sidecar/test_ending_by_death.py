"""How a run ended whose process is gone without a word: its cause, its stage, its parent, and the event."""

from __future__ import annotations

import pytest

from batch_observability import schema
from batch_observability.export.signals import Error
from batch_observability.sidecar.process import Death
from tests.sidecar.endings import TAGS, died, told
from tests.sidecar.frames import MODEL, ORPHAN_PARENT, PARENT, TRACE_ID, at, context, end, rows, stage, stage_end


@pytest.mark.parametrize(
    ("death", "silent", "outcome", "error"),
    [
        (Death(signal="SIGKILL"), False, "killed", Error("SIGKILL", "killed by SIGKILL in stage predict")),
        (Death(signal="SIGSEGV"), True, "killed", Error("SIGSEGV", "killed by SIGSEGV in stage predict")),
        (
            Death(exit_code=3),
            False,
            "killed",
            Error("ProcessExit", "the process left with exit code 3 in stage predict, without an outcome"),
        ),
        (
            Death(exit_code=0),
            True,
            "lost",
            Error("ProcessExit", "the process left with exit code 0 in stage predict, without an outcome"),
        ),
        (
            Death(),
            False,
            "killed",
            Error(
                "ProcessDied", "the process ended in stage predict without an outcome; this system does not tell why"
            ),
        ),
    ],
)
def test_a_death_is_told_with_its_cause_and_its_stage(death, silent, outcome, error):
    frames = (stage(1, "score", 1), stage(2, "predict", 2, parent=1), rows(1, 5))
    batch = died(*frames, death=death, silent=silent)
    run, *stages = batch.spans
    assert (run.attributes[schema.OUTCOME], run.error) == (outcome, error)
    assert run.attributes[schema.STAGE_NAME] == "predict"
    assert run.attributes.get(schema.SIGNAL, "") == death.signal
    assert run.attributes.get(schema.EXIT_CODE) == death.exit_code
    assert run.attributes[schema.ROWS_READ] == 5
    assert [(span.end_ns, span.error) for span in stages] == [(at(10), error)] * 2
    (event,) = batch.events
    assert event.title == f"Batch model churn was {outcome}"


def test_a_death_outside_of_a_stage_names_none():
    run = died(stage(1, "load", 1), stage_end(1, 2)).spans[0]
    assert run.error == Error("SIGKILL", "killed by SIGKILL")
    assert schema.STAGE_NAME not in run.attributes


def test_a_killed_run_is_an_event_with_cause_memory_trace_and_runbook():
    (event,) = died(stage(1, "load", 1)).events
    assert event.title == "Batch model churn was killed"
    assert event.text.splitlines() == [
        "dag.task: killed by SIGKILL in stage load.",
        "Memory peak 50 MB.",
        f"Trace {TRACE_ID:032x}.",
        "Runbook: https://wiki.example.com/churn",
    ]
    assert (event.alert_type, event.aggregation_key, event.time_ns) == ("error", "churn:killed", at(10))
    assert event.tags == TAGS
    (bare,) = died(run=context(model={key: value for key, value in MODEL.items() if key != "runbook"})).events
    assert "Runbook" not in bare.text


@pytest.mark.parametrize(
    ("death", "parent"),
    [
        # The span that the process itself would have sent is lost with it; what a signal leaves is Airflow's other one.
        (Death(signal="SIGKILL"), ORPHAN_PARENT),
        (Death(exit_code=0), None),
        (Death(), None),
        (None, PARENT),
    ],
)
def test_a_run_that_dies_hangs_under_a_span_that_will_exist(death, parent):
    run = context(orphan_parent_id=ORPHAN_PARENT)
    batch = died(run=run, death=death) if death else told(end("failed"), run=run)
    assert batch.spans[0].parent_id == parent


def test_where_the_parent_outlives_the_process_it_stays():
    for death in (Death(signal="SIGKILL"), Death(exit_code=0), Death()):
        assert died(death=death).spans[0].parent_id == PARENT
