"""What is known of a run from its frames."""

from __future__ import annotations

import json

import pytest

from batch_observability.sidecar import observation
from batch_observability.sidecar.observation import Observation
from tests.sidecar.frames import START_NS, at, context, end, rows, stage, stage_end


@pytest.fixture
def run():
    return Observation(context(), 3)


def add(run, *frames):
    for frame in frames:
        run.add(frame)
    return run


def test_it_begins_with_the_context_of_the_start_frame_and_passes_over_what_a_newer_task_may_add():
    values = {**json.loads(json.dumps(vars(context(linked_spans=((1, 2),))))), "new_in_2030": 1}
    begun = Observation.begin({"context": values, "phase_ns": at(5)}, 10)
    assert begun.context == context(linked_spans=((1, 2),))
    assert begun.total_rows is None
    assert begun.innermost_open_stage is None
    assert (begun.phase, begun.phase_began_ns) == (1, at(5))


def test_stages_nest_and_the_innermost_open_one_is_known(run):
    add(run, stage(1, "outer", 1), stage(2, "inner", 2, parent=1))
    assert run.innermost_open_stage.name == "inner"
    add(run, stage_end(2, 3, {"type": "E", "message": "m", "stack": ""}))
    assert run.innermost_open_stage.name == "outer"
    assert run.stages[2].error == {"type": "E", "message": "m", "stack": ""}
    assert (run.stages[2].start_ns, run.stages[2].end_ns) == (at(2), at(3))
    add(run, stage_end(1, 4))
    assert run.innermost_open_stage is None


def test_the_end_of_a_stage_that_is_not_known_is_passed_over(run):
    assert add(run, stage_end(99, 1)).stages == {}


def test_more_stages_than_fit_are_counted(run):
    add(run, *(stage(number, f"s{number}", number) for number in range(1, 6)))
    assert len(run.stages) == 3
    assert run.dropped == 2


def test_rows_of_a_process_are_totals_and_those_of_several_are_added_up(run):
    add(run, rows(10, read=5), rows(10, read=9, written=1), rows(11, read=100, rejected=2))
    assert run.total_rows == {"read": 109, "written": 1, "rejected": 2}


def test_measurements_and_events_are_kept_in_order_and_bounded(run, monkeypatch):
    monkeypatch.setattr(observation, "_MAX_MEASUREMENTS", 2)
    monkeypatch.setattr(observation, "_MAX_EVENTS", 1)
    for number in range(3):
        run.add({"t": "measure", "ts": at(1), "name": f"m{number}", "value": 1.0, "unit": ""})
        run.add({"t": "event", "ts": at(1), "text": f"e{number}", "stage": 0})
    assert [entry["name"] for entry in run.measurements] == ["m0", "m1"]
    assert [entry["text"] for entry in run.events] == ["e0"]
    assert run.dropped == 1 + 2


def test_the_last_frame_says_what_the_task_had_to_drop(run):
    add(run, end("success", dropped=4))
    assert run.ended["outcome"] == "success"
    assert run.dropped == 4
    add(run, {"t": "pause", "ts": at(2), "dropped": 1})
    assert run.paused_ns == at(2)
    assert run.dropped == 5


def test_a_kind_of_frame_that_is_not_known_is_passed_over(run):
    before = run.to_json()
    assert add(run, {"t": "hologram", "ts": 1}).to_json() == before


def test_a_run_that_paused_goes_on_with_all_that_it_had(run):
    add(run, stage(1, "load", 1), stage_end(1, 2), rows(10, read=5), end(dropped=1))
    run.add({"t": "measure", "ts": at(1), "name": "mae", "value": 1.5, "unit": "minute"})
    run.add({"t": "event", "ts": at(1), "text": "stale", "stage": 1})
    run.cpu_s, run.memory_peak = 1.5, 1000
    resumed = Observation(context(start_ns=at(100), resumed=True, parent_id=77), 3)
    resumed.resume(run.to_json())
    assert resumed.context.start_ns == START_NS
    assert resumed.context.parent_id == 77
    assert (resumed.phase, resumed.cpu_s, resumed.memory_peak, resumed.dropped) == (2, 1.5, 1000, 1)
    assert resumed.ended is None
    assert resumed.stages[1].name == "load"
    assert [entry["text"] for entry in resumed.events] == ["stale"]
    assert [entry["name"] for entry in resumed.measurements] == ["mae"]
    # The same pid in another phase is another process.
    resumed.add(rows(10, read=2))
    assert resumed.total_rows["read"] == 7


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"context": {}, "max_stages": 1}', "null"],
)
def test_a_state_that_is_none_is_an_error_that_the_loop_knows(run, text):
    with pytest.raises((ValueError, KeyError, TypeError)):
        run.resume(text)
