"""From an objective to a moment: due times, deadlines, and what tells one cause from all others."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from batch_observability import SLA, schema
from batch_observability.context import RunContext
from batch_observability.objective import ModelError
from batch_observability.sla.promises import (
    Deadline,
    Subject,
    deadlines,
    due_ns,
    margin_s,
    model_key,
    nanoseconds,
    sla_of,
    slot_of,
    subject_of,
    unix_ns,
)

SECOND = 10**9
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
MODEL = {"name": "churn", "version": "3", "service": "churn", "owner": "", "tier": "2", "objectives": {}, "terms": {}}


def ns(text: str) -> int:
    """Return a moment in UTC, `2026-03-29 01:30`, in nanoseconds."""
    return unix_ns(datetime.fromisoformat(text).replace(tzinfo=UTC))


DUE = ns("2026-06-01 06:00")
SUBJECT = Subject(
    model=MODEL,
    source="airflow",
    env="prod",
    resource="nightly.score",
    dag_id="nightly",
    task_id="score",
    dag_run_id="scheduled__1",
    slot=slot_of("scheduled", DUE, ""),
    due_ns=DUE,
    run_id="run-1",
)


def finish_by(promise: str, due: str, extended_s: float = 0.0) -> str:
    """Return until when a run that is due at a moment is to finish, in UTC."""
    found = deadlines(SLA(finish_by=promise), due=ns(due), start=None, extended_s=extended_s)
    return f"{datetime.fromtimestamp(found['finish_by'].at_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S}".removesuffix(":00")


# --- Due times -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_type", ["scheduled", "backfill"])
def test_what_is_scheduled_is_due_when_its_schedule_says_however_late_it_is_queued(run_type):
    assert due_ns(run_type, DUE, DUE + 90 * DAY) == DUE


@pytest.mark.parametrize("run_type", ["manual", "asset_triggered", "operator_triggered", "a type to come"])
def test_what_is_triggered_is_due_when_it_is_queued(run_type):
    assert due_ns(run_type, DUE, DUE + MINUTE) == DUE + MINUTE


def test_what_is_triggered_for_later_is_due_then():
    assert due_ns("manual", DUE, DUE - HOUR) == DUE


def test_without_a_queue_time_a_run_is_due_when_it_may_run():
    assert due_ns("manual", DUE, None) == DUE


# --- Deadlines -----------------------------------------------------------------------------------------------------


def test_each_promise_counts_from_its_own_moment():
    sla = SLA(start_within="10m", finish_within="1h", finish_by="08:00 UTC", warn_at=0.5)
    assert deadlines(sla, due=DUE, start=DUE + 5 * MINUTE) == {
        "start_within": Deadline("start_within", "10m", DUE + 10 * MINUTE, DUE + 5 * MINUTE),
        "finish_within": Deadline("finish_within", "1h", DUE + 65 * MINUTE, DUE + 35 * MINUTE),
        "finish_by": Deadline("finish_by", "08:00 UTC", DUE + 2 * HOUR, DUE + HOUR),
    }


def test_what_has_not_begun_need_not_end_within_a_time():
    sla = SLA(start_within="10m", finish_within="1h", finish_by="08:00 UTC")
    assert set(deadlines(sla, due=DUE, start=None)) == {"start_within", "finish_by"}


def test_without_a_due_time_only_the_run_itself_counts():
    sla = SLA(start_within="10m", finish_within="1h", finish_by="08:00 UTC")
    assert set(deadlines(sla, due=None, start=DUE)) == {"finish_within"}


def test_a_backfill_is_not_late_unless_that_is_wanted():
    promised = {"start_within": "10m", "finish_within": "1h", "finish_by": "08:00 UTC"}
    assert set(deadlines(SLA(**promised), due=DUE, start=DUE, backfill=True)) == {"finish_within"}
    asked = SLA(**promised, judge_backfills=True)
    assert deadlines(asked, due=DUE, start=DUE, backfill=True) == deadlines(asked, due=DUE, start=DUE)


def test_time_that_is_granted_moves_the_finish_and_not_the_start():
    sla = SLA(start_within="10m", finish_within="1h", finish_by="08:00 UTC")
    before, after = (deadlines(sla, due=DUE, start=DUE, extended_s=granted) for granted in (0, 1200.5))
    moved = {name: after[name].at_ns - before[name].at_ns for name in before}
    assert moved == {
        "start_within": 0,
        "finish_within": 1200 * SECOND + SECOND // 2,
        "finish_by": moved["finish_within"],
    }


def test_a_deadline_that_is_over_when_the_run_is_due_warns_of_nothing_earlier():
    """A run that somebody triggers in the afternoon, of a model that is to be ready in the morning."""
    due = ns("2026-06-01 15:00")
    one = deadlines(SLA(finish_by="06:30 UTC"), due=due, start=None)["finish_by"]
    assert (one.at_ns, one.warn_ns) == (ns("2026-06-01 06:30"), due)


@pytest.mark.parametrize(
    ("due", "promise", "moment"),
    [
        # The date counts in the zone of the promise.
        ("2026-06-01 06:00", "06:30 UTC", "2026-06-01 06:30"),
        ("2026-06-01 23:30", "06:30 Europe/London", "2026-06-02 05:30"),
        ("2026-06-01 22:30", "06:30 Europe/London", "2026-06-01 05:30"),
        ("2026-06-01 18:29", "06:30 Asia/Kolkata", "2026-06-01 01:00"),
        ("2026-06-01 18:30", "06:30 Asia/Kolkata", "2026-06-02 01:00"),
        ("2026-06-01 03:59", "23:00 America/New_York", "2026-06-01 03:00"),
        ("2026-06-01 04:00", "23:00 America/New_York", "2026-06-02 03:00"),
        # Days are dates, not spans of 24 hours.
        ("2026-03-28 12:00", "+1d 06:30 Europe/London", "2026-03-29 05:30"),
        ("2026-10-24 12:00", "+1d 06:30 Europe/London", "2026-10-25 06:30"),
        ("2026-02-27 12:00", "+2d 06:30 UTC", "2026-03-01 06:30"),
        ("2028-02-27 12:00", "+2d 06:30 UTC", "2028-02-29 06:30"),
    ],
)
def test_a_wall_clock_time_is_taken_on_the_date_that_the_run_is_due(due, promise, moment):
    assert finish_by(promise, due) == moment


@pytest.mark.parametrize(
    ("due", "promise", "moment"),
    [
        # Skipped: as on a clock that nobody has put forward.
        ("2026-03-29 00:00", "01:30 Europe/London", "2026-03-29 01:30"),
        ("2026-03-08 06:00", "02:30 America/New_York", "2026-03-08 07:30"),
        ("2026-10-03 14:00", "02:15 Australia/Lord_Howe", "2026-10-03 15:45"),
        ("2026-09-06 12:00", "00:00 America/Santiago", "2026-09-06 04:00"),
        # Shown twice: the first time.
        ("2026-10-25 00:00", "01:30 Europe/London", "2026-10-25 00:30"),
        ("2026-11-01 04:30", "01:30 America/New_York", "2026-11-01 05:30"),
        ("2026-04-04 14:00", "01:45 Australia/Lord_Howe", "2026-04-04 14:45"),
        ("2026-04-04 12:00", "23:30 America/Santiago", "2026-04-05 02:30"),
        # Also of a run that is due in between, when it is shown for the second time.
        ("2026-10-25 01:15", "01:30 Europe/London", "2026-10-25 00:30"),
    ],
)
def test_a_time_that_clocks_skip_or_show_twice_counts_from_before_they_change(due, promise, moment):
    assert finish_by(promise, due) == moment


def test_time_that_is_granted_is_time_that_passes():
    """From 00:30 to 03:30 it is two hours in London on that night."""
    assert finish_by("00:30 Europe/London", "2026-03-29 00:00", extended_s=7200) == "2026-03-29 02:30"


def test_moments_are_exact():
    assert unix_ns(datetime(2026, 1, 1, 0, 0, 0, 1, UTC)) == 1_767_225_600_000_001_000
    assert nanoseconds(timedelta(days=3_000_000, microseconds=1)) == 3_000_000 * DAY + 1000
    assert (margin_s(3 * SECOND, SECOND), margin_s(SECOND, 3 * SECOND)) == (2.0, -2.0)


# --- Keys ----------------------------------------------------------------------------------------------------------


def test_a_cause_has_the_same_key_whoever_sees_it():
    """Before there is a DAG run, from outside, and in the run."""
    slot = replace(SUBJECT, dag_run_id="", run_id="")
    for objective in ("start_within", "finish_by"):
        assert SUBJECT.key(objective) == slot.key(objective) == f"{objective}|nightly.score|-1|due {DUE}"


def test_what_is_triggered_is_told_apart_by_its_dag_run():
    subject = replace(SUBJECT, slot=slot_of("manual", DUE, "manual__1"))
    assert subject.key("start_within") == "start_within|nightly.score|-1|manual__1"
    assert not subject.is_scheduled


def test_each_instance_of_a_mapped_task_has_its_own_causes():
    assert len({replace(SUBJECT, map_index=index).key("finish_by") for index in (-1, 0, 1)}) == 3


def test_all_tries_have_one_cause_and_what_was_cleared_has_another():
    tries = [replace(SUBJECT, run_id=f"run-{number}") for number in (1, 2)]
    assert len({one.key("finish_within") for one in tries}) == 1
    cleared = replace(SUBJECT, clear_number=1)
    assert cleared.key("finish_within") != SUBJECT.key("finish_within")
    assert cleared.key("finish_by") == SUBJECT.key("finish_by")


@pytest.mark.parametrize("objective", ["min_duration", "min_rows", "max_rejected_ratio"])
def test_what_a_run_did_is_a_cause_of_that_run(objective):
    assert SUBJECT.key(objective) == f"{objective}|nightly.score|run-1"


def test_a_run_without_a_slot_stands_for_itself():
    assert replace(SUBJECT, slot="").key("finish_within") == "finish_within|nightly.score|-1|run-1|0"


def test_a_cause_of_a_model_as_a_whole_names_the_model():
    assert model_key("freshness", "churn", 7) == "freshness|churn|7"


def test_long_names_make_no_endless_key_and_stay_apart():
    long = replace(SUBJECT, resource="d" * 250 + "." + "t" * 250, slot="r" * 250)
    keys = {replace(long, slot=f"{long.slot}{number}").key("start_within") for number in range(3)}
    assert len(keys) == 3
    assert max(map(len, keys)) < 700


def test_the_tags_of_a_promise_are_those_of_metrics():
    assert set(SUBJECT.tags) <= set(schema.TAGS)
    assert "owner" not in SUBJECT.tags


def test_a_run_is_the_subject_of_its_promises():
    attributes = {schema.DAG_RUN_ID: "scheduled__1", schema.MAP_INDEX: 4}
    context = RunContext(
        run_id="run-1",
        source="airflow",
        resource="nightly.score",
        model=MODEL,
        tags={"dag_id": "nightly", "task_id": "score"},
        trace_id=1,
        span_id=2,
        attributes=attributes,
        due_ns=DUE,
        slot=SUBJECT.slot,
        clear_number=2,
        env="prod",
    )
    assert subject_of(context) == replace(SUBJECT, map_index=4, clear_number=2, trace_id=1, span_id=2)


# --- Models as runs carry them -------------------------------------------------------------------------------------


def test_an_sla_is_read_back_from_what_a_run_carries():
    sla = SLA(finish_by="+1d 06:30 Europe/London", success_rate="99%", window="7d", warn_at=0.5, judge_backfills=True)
    assert sla_of({"name": "churn", "objectives": sla.objectives(), "terms": sla.terms()}) == sla


def test_a_model_without_objectives_promises_nothing():
    assert sla_of({"name": "churn"}).objectives() == {}


def test_what_another_version_wrote_and_this_cannot_read_is_told_with_its_model():
    with pytest.raises(ModelError, match="of model 'churn'"):
        sla_of({"name": "churn", "objectives": {"happiness": "high"}})
