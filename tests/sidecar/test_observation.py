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
    before = run.state()
    assert add(run, {"t": "hologram", "ts": 1}).state() == before


def known(run):
    """Fill a run with one of everything."""
    add(run, stage(1, "load", 1), stage_end(1, 2), rows(10, read=5), end(dropped=1))
    run.add({"t": "measure", "ts": at(1), "name": "mae", "value": 1.5, "unit": "minute"})
    run.add({"t": "event", "ts": at(1), "text": "stale", "stage": 1})
    run.cpu_s, run.memory_peak = 1.5, 1000


def test_a_run_that_paused_goes_on_with_all_that_it_had(run):
    known(run)
    run.add({"t": "pause", "ts": at(3)})
    resumed = Observation(context(start_ns=at(100), resumed=True, parent_id=77), 9, phase_began_ns=at(100))
    resumed.resume(json.loads(json.dumps(run.state())))
    assert resumed.context.start_ns == START_NS
    assert resumed.context.parent_id == 77
    assert (resumed.phase, resumed.cpu_s, resumed.memory_peak, resumed.dropped) == (2, 1.5, 1000, 1)
    assert (resumed.ended, resumed.paused_ns, resumed.waiting_s) == (None, None, 97)
    assert [stage.name for stage in resumed.stages.values()] == ["phase", "load", "waiting"]
    assert [entry["text"] for entry in resumed.events] == ["stale"]
    assert [entry["name"] for entry in resumed.measurements] == ["mae"]
    # The same pid in another phase is another process.
    resumed.add(rows(10, read=2))
    assert resumed.total_rows["read"] == 7


def test_a_run_whose_observer_was_lost_goes_on_in_the_phase_that_it_was_in(run):
    known(run)
    run.ended = None
    asked = {"t": "asked_to_end", "ts": at(4), "killed_after_s": 5.0}
    add(run, stage(2, "score", 3), asked)
    next_one = Observation(context(), 9, phase_began_ns=START_NS)
    next_one.resume(json.loads(json.dumps(run.state())))
    assert (next_one.phase, next_one.phase_began_ns, next_one.waiting_s) == (1, run.phase_began_ns, 0)
    assert next_one.innermost_open_stage.name == "score"
    assert next_one.asked_to_end == asked
    # Of the same process the newest totals count.
    next_one.add(rows(10, read=6))
    assert next_one.total_rows["read"] == 6


@pytest.mark.parametrize("known", [{}, [], None, 7, "{", {"context": {}, "max_stages": 1}, {"stages": [1]}])
def test_a_state_that_is_none_is_an_error_that_the_loop_knows(run, known):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        run.resume(known)


# --- Phases -------------------------------------------------------------------------------------------------------


def phases(count, most=100):
    """Return a run of so many phases of 1 s with 9 s between two of them; each has a stage and reads a row."""
    run = Observation(context(), most, phase_began_ns=START_NS)
    for number in range(count):
        if number:
            state = json.loads(json.dumps(run.state()))
            run = Observation(context(start_ns=at(10 * number), resumed=True), most, phase_began_ns=at(10 * number))
            run.resume(state)
        begun = 10 * number
        add(run, stage(100 + number, "poke", begun + 0.1), stage_end(100 + number, begun + 0.9), rows(7, read=1))
        if number < count - 1:
            run.add({"t": "pause", "ts": at(begun + 1)})
    return run


def test_many_phases_are_bounded_and_their_time_counts_all_the_same(monkeypatch):
    monkeypatch.setattr(observation, "_MAX_PHASES", 3)
    run = phases(6)
    run.close_phase(at(51))
    names = [stage.name for stage in run.stages.values()]
    assert (names.count("phase"), names.count("waiting"), names.count("poke")) == (3, 3, 6)
    assert (run.phase, run.waiting_s) == (6, 5 * 9)
    assert run.total_rows["read"] == 6
    within = [run.stages[stage.parent].name if stage.parent else "" for stage in run.stages.values() if not stage.own]
    assert within == ["phase"] * 3 + [""] * 3


def test_a_sensor_that_pokes_for_days_stays_small():
    run = phases(200, most=150)
    assert len(run.stages) <= 150
    assert run.dropped > 0
    assert (run.phase, run.waiting_s) == (200, 199 * 9)
    assert len(json.dumps(run.state())) < 200_000


def test_phases_are_no_stages_that_a_run_is_in_or_failed_in():
    run = phases(2)
    assert run.innermost_open_stage is None
    run.close_phase(None)
    assert run.innermost_open_stage is None
    assert run.failed_stage is None


def test_a_clock_of_another_host_that_is_behind_makes_no_negative_waiting():
    run = Observation(context(), 10, phase_began_ns=START_NS)
    run.add({"t": "pause", "ts": at(100)})
    resumed = Observation(context(start_ns=at(90), resumed=True), 10, phase_began_ns=at(90))
    resumed.resume(run.state())
    assert resumed.waiting_s == 0
    assert all(stage.end_ns >= stage.start_ns for stage in resumed.stages.values())
