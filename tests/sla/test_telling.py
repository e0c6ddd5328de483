"""A promise that is at risk, broken or kept again is told once, by who claims it first, with what a person needs."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from batch_observability import schema
from batch_observability.export.replay import replay
from batch_observability.ledger.records import Extended, Started
from batch_observability.sla.promises import slot_of
from batch_observability.sla.telling import AT_RISK, BROKEN, Teller, clock
from tests.sla.causes import (
    DUE,
    DUE_TEXT,
    HOUR,
    MINUTE,
    RUNBOOK,
    TAGS,
    cause,
    declared,
    finished,
    run,
    subject,
    write_locked,
)

ALL = ("sla.at_risk", "sla.breached", "sla.checked", "run.missed")
SUBJECT = subject(trace_id=0xABC << 64, span_id=77)
CAUSE = cause(SUBJECT)


@pytest.fixture
def teller(host):
    return Teller(host.delivery(), "helper", must_claim=True)


def counted(host) -> list[float]:
    return [host.counted(name) for name in ALL]


# --- What is told --------------------------------------------------------------------------------------------------


def test_a_broken_promise_is_one_count_one_event_one_record_and_one_row(host, teller):
    assert teller.promised(SUBJECT, BROKEN, CAUSE)
    assert counted(host) == [0, 1, 1, 0]
    assert [one["title"] for one in host.events()] == ["Batch model churn broke finish_within 20m"]
    assert [one["event"] for one in host.records()] == [schema.BREACHED_EVENT]
    (row,) = host.promises()
    assert (row["key"], row["breached_ns"], row["deadline_ns"]) == (CAUSE.key, DUE + HOUR, DUE + HOUR)
    assert (row["told_by"], row["missed"], row["at_risk_ns"], row["recovered_ns"]) == ("helper", 0, None, None)
    assert host.waiting() == []


def test_what_is_at_risk_is_one_count_one_record_and_one_row(host, teller):
    """Nobody is to get up for it."""
    assert teller.promised(SUBJECT, AT_RISK, replace(CAUSE, moment_ns=DUE + 48 * MINUTE))
    assert counted(host) == [1, 0, 0, 0]
    assert host.events() == []
    assert [(one["event"], one["level"]) for one in host.records()] == [(schema.AT_RISK_EVENT, "warning")]
    (row,) = host.promises()
    assert (row["at_risk_ns"], row["breached_ns"], row["deadline_ns"]) == (DUE + 48 * MINUTE, None, DUE + HOUR)


def test_an_event_says_what_where_when_and_who_is_to_do_what(host, teller):
    teller.promised(SUBJECT, BROKEN, replace(CAUSE, deadline_ns=DUE + 20 * MINUTE, reason="not finished, 5s late"))
    (event,) = host.events()
    assert event["body"].splitlines() == [
        "Batch model churn broke finish_within 20m",
        "nightly.score: not finished, 5s late.",
        f"Due {DUE_TEXT}.",
        "Promised for 2026-06-01T06:20:00Z.",
        f"Trace {0xABC << 64:032x}.",
        "Owner: team-risk.",
        f"Runbook: {RUNBOOK}",
    ]
    assert (event["alert_type"], event["aggregation_key"]) == ("error", "churn:finish_within")


def test_what_is_not_known_is_not_said(host, teller):
    bare = subject(model={**SUBJECT.model, "owner": "", "runbook": ""}, due_ns=None)
    teller.promised(bare, BROKEN, cause(bare, deadline_ns=None, reason=""))
    (event,) = host.events()
    assert event["body"].splitlines()[1:] == ["nightly.score: its time is over."]
    (record,) = host.records()
    assert not {"dd.trace_id", "batch_model.sla.due", "batch_model.sla.deadline"} & set(record)


def test_tags_are_of_the_closed_list(host, teller):
    for state in (AT_RISK, BROKEN):
        teller.promised(SUBJECT, state, replace(CAUSE, missed=True))
    teller.recovered(SUBJECT, CAUSE, before_ns=0, own=True)
    tags = [tags for name in ALL for _, tags in host.points(name)]
    assert len(tags) == 4
    assert all(set(one) <= TAGS for one in tags)
    assert {one.get("objective") for one in tags} == {"finish_within", None}
    of_events = set().union(*host.events()) - {"title", "alert_type", "aggregation_key", "body"}
    assert of_events <= TAGS


def test_a_record_has_fields_of_the_list(host, teller):
    teller.promised(SUBJECT, BROKEN, CAUSE)
    (record,) = host.records()
    assert set(record) <= set(schema.LOG_FIELDS)
    assert {
        name: record[f"batch_model.sla.{name}"] for name in ("objective", "promise", "reason", "due", "deadline")
    } == {
        "objective": "finish_within",
        "promise": "20m",
        "reason": "not finished, 5s late",
        "due": DUE_TEXT,
        "deadline": "2026-06-01T07:00:00Z",
    }
    assert (record["dd.trace_id"], record["dd.span_id"]) == (f"{0xABC << 64:032x}", "77")


def test_what_nobody_began_is_counted_as_missed(host, teller):
    assert teller.promised(SUBJECT, BROKEN, cause(SUBJECT, "start_within", missed=True))
    assert counted(host) == [0, 1, 1, 1]
    assert host.events()[0]["title"] == "Batch model churn was not run: start_within 20m is broken"
    assert host.promises()[0]["missed"] == 1


def test_what_concerns_a_model_as_a_whole_is_not_checked_by_its_breach(host, teller):
    teller.promised(SUBJECT, BROKEN, cause(SUBJECT, "freshness", key="freshness|churn|1", episode="freshness|churn"))
    assert counted(host) == [0, 1, 0, 0]


def test_granted_time_is_one_record(host, teller):
    host.ledger.apply(Started(run=run(SUBJECT), context={}))
    teller.extended(SUBJECT, Extended(run=run(SUBJECT), total_s=1200), "a large month")
    (record,) = host.records()
    assert (record["event"], record["level"]) == (schema.EXTENDED_EVENT, "warning")
    assert record["batch_model.sla.reason"] == "20m in all: a large month"
    assert host.ledger.standing(run(SUBJECT)).extended_s == 1200


def test_a_moment_is_said_in_utc():
    assert clock(DUE + 999_999_999) == DUE_TEXT


# --- Exactly once --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [AT_RISK, BROKEN])
def test_the_second_who_tells_a_cause_tells_nothing(host, teller, state):
    assert teller.promised(SUBJECT, state, CAUSE)
    before = counted(host), host.events(), host.records(), host.promises()
    for told_by in ("helper", "check", "sidecar"):
        assert not Teller(host.delivery(), told_by, must_claim=True).promised(SUBJECT, state, CAUSE)
        assert not Teller(host.delivery(), told_by, must_claim=False).promised(SUBJECT, state, CAUSE)
    assert (counted(host), host.events(), host.records(), host.promises()) == before


def test_of_many_who_tell_at_once_one_does(host):
    tellers = [Teller(host.delivery(), "check", must_claim=True) for _ in range(8)]
    gate, answers = threading.Barrier(len(tellers)), []

    def tell(one):
        gate.wait()
        answers.append(one.promised(SUBJECT, BROKEN, CAUSE))

    threads = [threading.Thread(target=tell, args=(one,)) for one in tellers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 7 + [True]
    assert counted(host) == [0, 1, 1, 0]
    assert len(host.events()) == len(host.records()) == len(host.promises()) == 1


def test_at_risk_and_broken_are_one_cause(host, teller):
    assert teller.promised(SUBJECT, AT_RISK, replace(CAUSE, moment_ns=DUE))
    assert teller.promised(SUBJECT, BROKEN, CAUSE)
    assert counted(host) == [1, 1, 1, 0]
    (row,) = host.promises()
    assert (row["at_risk_ns"], row["breached_ns"]) == (DUE, DUE + HOUR)


def test_what_is_broken_is_no_longer_at_risk(host, teller):
    teller.promised(SUBJECT, BROKEN, CAUSE)
    assert not teller.promised(SUBJECT, AT_RISK, CAUSE)
    assert counted(host) == [0, 1, 1, 0]


def test_causes_of_other_runs_and_instances_are_told_too(host, teller):
    others = [SUBJECT, replace(SUBJECT, map_index=0), replace(SUBJECT, slot="manual__2", dag_run_id="manual__2")]
    assert [teller.promised(one, BROKEN, cause(one)) for one in others] == [True] * 3
    assert len(host.promises()) == 3


def test_a_schedule_counts_from_when_a_task_is_known(host, teller):
    of = subject(slot=slot_of("scheduled", DUE, ""), dag_run_id="scheduled__1")
    late = cause(of, "start_within")
    assert not teller.promised(of, BROKEN, late)
    host.ledger.apply(declared(of, since_ns=DUE + 1))
    assert not teller.promised(of, BROKEN, late)
    assert host.promises() == []
    host.ledger.apply(declared(of, since_ns=DUE))
    assert teller.promised(of, BROKEN, late)


def test_who_triggers_a_run_need_not_be_known_first(host, teller):
    assert teller.promised(SUBJECT, BROKEN, cause(SUBJECT, "start_within"))


def test_what_a_run_has_kept_is_not_broken_when_it_is_cleared(host, teller):
    """Of the start and the wall clock; to finish within a time is promised again."""
    host.ledger.apply(finished(run(SUBJECT), kept=0b111))
    again = replace(SUBJECT, run_id="run-2", clear_number=1)
    told = {
        name: teller.promised(again, BROKEN, cause(again, name))
        for name in ("start_within", "finish_by", "finish_within")
    }
    assert told == {"start_within": False, "finish_by": False, "finish_within": True}


# --- Recovery ------------------------------------------------------------------------------------------------------


def test_recovery_is_one_event_and_one_record(host, teller):
    teller.promised(SUBJECT, BROKEN, CAUSE)
    again = replace(CAUSE, moment_ns=DUE + 2 * HOUR, reason="finished 5m late")
    assert teller.recovered(SUBJECT, again, before_ns=0, own=True)
    assert not teller.recovered(SUBJECT, again, before_ns=0, own=True)
    broken, recovered = host.events()
    assert recovered["title"] == "Batch model churn keeps finish_within 20m again"
    assert recovered["alert_type"] == "success"
    assert recovered["aggregation_key"] == broken["aggregation_key"]
    assert "nightly.score: finished 5m late." in recovered["body"]
    assert [one["event"] for one in host.records()] == [schema.BREACHED_EVENT, schema.RECOVERED_EVENT]
    assert counted(host) == [0, 1, 1, 0]
    (row,) = host.promises()
    assert row["recovered_ns"] == DUE + 2 * HOUR


def test_nothing_recovers_that_was_not_broken(host, teller):
    teller.promised(SUBJECT, AT_RISK, CAUSE)
    assert not teller.recovered(SUBJECT, CAUSE, before_ns=DUE + 9 * HOUR, own=True)
    assert host.events() == []


def test_a_run_recovers_what_was_broken_before_it_began(host, teller):
    earlier = [replace(SUBJECT, slot=f"manual__{number}", dag_run_id=f"manual__{number}") for number in (7, 8)]
    for hours, one in enumerate(earlier, 1):
        teller.promised(one, BROKEN, cause(one, moment_ns=DUE + hours * HOUR))
    assert teller.recovered(SUBJECT, CAUSE, before_ns=DUE + 2 * HOUR, own=False)
    assert [row["recovered_ns"] is not None for row in host.promises()] == [True, False]
    assert len(host.events()) == 3


def test_a_run_recovers_what_is_of_its_own_task_only(host, teller):
    teller.promised(SUBJECT, BROKEN, CAUSE)
    other = replace(SUBJECT, resource="weekly.score")
    assert not teller.recovered(other, cause(other), before_ns=DUE + 9 * HOUR, own=True)
    assert not teller.recovered(SUBJECT, cause(SUBJECT, "finish_by"), before_ns=DUE + 9 * HOUR, own=True)
    assert host.promises()[0]["recovered_ns"] is None


# --- Without a ledger ----------------------------------------------------------------------------------------------


def test_who_must_claim_tells_nothing_that_it_cannot_claim(host):
    teller = Teller(host.delivery(ledger_timeout=0.1), "check", must_claim=True)
    with write_locked(host.state):
        assert not teller.promised(SUBJECT, BROKEN, CAUSE)
    assert (counted(host), host.events(), host.records(), host.waiting()) == ([0, 0, 0, 0], [], [], [])
    assert teller.promised(SUBJECT, BROKEN, CAUSE)
    assert counted(host) == [0, 1, 1, 0]


def test_a_run_tells_what_it_has_broken_though_the_ledger_is_away(host):
    teller = Teller(host.delivery(ledger_timeout=0.1), "sidecar", must_claim=False)
    with write_locked(host.state):
        assert teller.promised(SUBJECT, BROKEN, CAUSE)
    assert counted(host) == [0, 1, 1, 0]
    assert (host.promises(), len(host.waiting())) == ([], 1)
    replay(host.delivery())
    assert (len(host.promises()), host.waiting()) == (1, [])
    assert not Teller(host.delivery(), "helper", must_claim=True).promised(SUBJECT, BROKEN, CAUSE)
    assert counted(host) == [0, 1, 1, 0]
