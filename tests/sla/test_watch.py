"""What no run can tell: what is due and did not start, what waits past its promise, what grows old. Told once."""

from __future__ import annotations

import json
import logging
import os
import threading
from dataclasses import replace

import pytest

from batch_observability.export import deliver
from batch_observability.export.replay import replay
from batch_observability.export.spool import LEDGER
from batch_observability.ledger.records import Extended, Started
from batch_observability.sla.promises import slot_of
from batch_observability.sla.telling import Teller
from batch_observability.sla.watch import Expected, Watcher
from tests.live import wait_until
from tests.sla import lookers
from tests.sla.causes import (
    DAY,
    DUE,
    HOUR,
    MINUTE,
    SECOND,
    TAGS,
    cause,
    declared,
    finished,
    model,
    place,
    run,
    write_locked,
)

GRACE = 15 * SECOND
STARTS = {"start_within": "10m", "warn_at": 1}
FINISHES = {"finish_within": "1h", "warn_at": 1}


def expected(promised, **values):
    """Return a run of a schedule that nobody has begun."""
    return Expected(**{"model": model(**promised), "since_ns": DUE - DAY, **place(), **values})


class Looker:
    """Somebody who looks for what is expected, which tests change; tasks are known."""

    def __init__(self, host, *due, told_by="helper", news=None, **settings):
        self.due = list(due)
        news = [declared(one, one.since_ns) for one in due] if news is None else news
        self.watcher = Watcher(
            host.settings(**settings), host.delivery(**settings), told_by, "prod", lambda: (self.due, news)
        )

    def look(self, now_ns, **what):
        seen = self.watcher.look(now_ns=now_ns, **{"freshness": False, "rates": False, **what})
        assert seen.complete
        return [(state, objective) for state, _, objective in seen.told]


# --- What has not begun --------------------------------------------------------------------------------------------


def test_a_run_that_is_due_and_did_not_start_is_told_once_and_missed(host):
    looker = Looker(host, expected(STARTS, why="its DAG is paused"))
    assert looker.look(DUE + HOUR) == [("breached", "start_within")]
    assert [looker.look(DUE + hours * HOUR) for hours in (1, 2, 3)] == [[], [], []]
    (row,) = host.promises()
    assert (row["missed"], row["told_by"], row["due_ns"]) == (1, "helper", DUE)
    assert row["breached_ns"] == row["deadline_ns"] == DUE + 10 * MINUTE
    assert row["reason"] == "not started, 50m late: its DAG is paused"
    assert [host.counted(name) for name in ("sla.breached", "sla.checked", "run.missed")] == [1, 1, 1]
    (event,) = host.events()
    assert event["title"] == "Batch model churn was not run: start_within 10m is broken"
    assert set(host.points("run.missed")[0][1]) <= TAGS


def test_who_runs_it_has_the_first_word(host):
    looker = Looker(host, expected(STARTS))
    deadline = DUE + 10 * MINUTE
    assert looker.look(deadline + GRACE - 1) == []
    # At its deadline, a promise is kept; all of its time is used up.
    assert looker.look(deadline + GRACE) == [("at_risk", "start_within")]
    assert looker.look(deadline + GRACE + 1) == [("breached", "start_within")]


def test_it_is_at_risk_first(host):
    looker = Looker(host, expected({**STARTS, "warn_at": 0.5}))
    moments = (DUE + 5 * MINUTE, DUE + 5 * MINUTE + GRACE, DUE + 8 * MINUTE, DUE + 11 * MINUTE, DUE + HOUR)
    told = [looker.look(now_ns) for now_ns in moments]
    assert told == [[], [("at_risk", "start_within")], [], [("breached", "start_within")], []]
    (row,) = host.promises()
    assert (row["at_risk_ns"], row["breached_ns"]) == (DUE + 5 * MINUTE, DUE + 10 * MINUTE)
    assert host.counted("run.missed") == 1


def test_what_is_not_due_yet_is_told_nowhere(host):
    assert Looker(host, expected({"start_within": "10m", "finish_by": "08:00 UTC"})).look(DUE + MINUTE) == []
    assert host.promises() == []


def test_a_slot_that_nobody_ran_is_missed_once_whatever_it_promised(host):
    looker = Looker(host, expected({"start_within": "10m", "finish_by": "08:00 UTC"}, why="its DAG is paused"))
    assert looker.look(DUE + HOUR) == [("breached", "start_within")]
    assert looker.look(DUE + 3 * HOUR) == [("breached", "finish_by")]
    assert host.counted("sla.breached") == 2
    assert host.counted("run.missed") == 1


def test_a_slot_that_only_promised_its_end_is_missed_too(host):
    assert Looker(host, expected({"finish_by": "08:00 UTC"})).look(DUE + 3 * HOUR) == [("breached", "finish_by")]
    assert host.counted("run.missed") == 1


def test_a_slot_is_the_same_when_its_dag_run_is_there(host):
    """Its DAG was paused and goes on: the run is late, which is known."""
    slot = expected(STARTS)
    looker = Looker(host, slot)
    assert looker.look(DUE + HOUR) == [("breached", "start_within")]
    waits = replace(slot, dag_run_id="scheduled__1")
    began = replace(waits, started_ns=DUE + 2 * HOUR)
    for one in (waits, began, replace(began, map_index=0), replace(began, map_index=1)):
        looker.due = [one]
        assert looker.look(DUE + 3 * HOUR) == []
    assert len(host.promises()) == 1


def test_each_slot_is_told(host):
    days = [expected(STARTS, **place(due_ns=DUE + day * DAY)) for day in range(3)]
    assert Looker(host, *days, news=[declared(days[0])]).look(DUE + 3 * DAY) == [("breached", "start_within")] * 3
    assert host.counted("run.missed") == 3


# --- What has begun ------------------------------------------------------------------------------------------------


def test_a_late_start_is_told_without_delay_and_is_not_missed(host):
    late = expected(STARTS, started_ns=DUE + 10 * MINUTE + SECOND)
    assert Looker(host, late).look(DUE + 10 * MINUTE + 2 * SECOND) == [("breached", "start_within")]
    (row,) = host.promises()
    assert (row["missed"], row["reason"], row["breached_ns"]) == (0, "started 1s late", DUE + 10 * MINUTE)
    assert host.counted("run.missed") == 0


@pytest.mark.parametrize("started_ns", [DUE, DUE + 10 * MINUTE])
def test_a_start_in_time_stays_in_time(host, started_ns):
    assert Looker(host, expected(STARTS, started_ns=started_ns)).look(DUE + DAY) == []


def test_a_run_that_waits_to_be_retried_past_its_promise_is_told(host):
    waits = expected(FINISHES, started_ns=DUE, dag_run_id="scheduled__1", why="it waits to be retried")
    looker = Looker(host, waits)
    assert looker.look(DUE + HOUR + GRACE - 1) == []
    assert looker.look(DUE + HOUR + MINUTE) == [("breached", "finish_within")]
    assert looker.look(DUE + 2 * HOUR) == []
    (row,) = host.promises()
    assert (row["missed"], row["reason"]) == (0, "not finished, 1m late: it waits to be retried")
    assert host.events()[0]["title"] == "Batch model churn broke finish_within 1h"


def test_a_run_that_hangs_past_its_wall_clock_time_is_told(host):
    hangs = expected({"finish_by": "08:00 UTC"}, started_ns=DUE + HOUR, why="it is deferred")
    assert Looker(host, hangs).look(DUE + 2 * HOUR + MINUTE) == [("breached", "finish_by")]
    assert host.promises()[0]["missed"] == 0


@pytest.mark.parametrize("started_ns", [None, DUE], ids=["skipped before it began", "succeeded"])
def test_what_is_settled_has_nothing_left_to_break(host, started_ns):
    promised = {"start_within": "10m", "finish_within": "1h", "finish_by": "08:00 UTC"}
    settled = expected(promised, settled=True, started_ns=started_ns)
    assert Looker(host, settled).look(DUE + DAY) == []


def test_what_is_cleared_is_promised_its_whole_time_again(host):
    first = expected(FINISHES, started_ns=DUE, dag_run_id="scheduled__1")
    looker = Looker(host, first)
    assert looker.look(DUE + 2 * HOUR) == [("breached", "finish_within")]
    looker.due = [replace(first, clear_number=1, started_ns=DUE + 3 * HOUR)]
    assert looker.look(DUE + 3 * HOUR + 50 * MINUTE) == []
    assert looker.look(DUE + 5 * HOUR) == [("breached", "finish_within")]
    assert len(host.promises()) == 2


def test_instances_of_a_mapped_task_are_told_each(host):
    instances = [expected(FINISHES, started_ns=DUE, map_index=index) for index in range(3)]
    assert Looker(host, *instances).look(DUE + 2 * HOUR) == [("breached", "finish_within")] * 3


# --- Whom nobody waits for -----------------------------------------------------------------------------------------


def test_a_backfill_is_not_late(host):
    promised = {"start_within": "10m", "finish_by": "08:00 UTC"}
    values = {"slot": slot_of("backfill", DUE, "backfill__1"), "dag_run_id": "backfill__1", "backfill": True}
    assert Looker(host, expected(promised, **values)).look(DUE + DAY) == []
    asked = expected({**promised, "judge_backfills": True}, **values)
    assert len(Looker(host, asked).look(DUE + DAY)) == 2


def test_a_backfill_is_to_finish_within_its_time(host):
    slow = expected(FINISHES, slot="backfill__1", backfill=True, started_ns=DUE + DAY)
    assert Looker(host, slow).look(DUE + 2 * DAY) == [("breached", "finish_within")]


def test_what_was_due_before_its_task_was_known_is_not_late(host):
    """The first catch-up of a new DAG."""
    old = expected({"start_within": "10m", "finish_by": "08:00 UTC"}, since_ns=DUE + 1)
    assert Looker(host, old).look(DUE + DAY) == []
    assert host.promises() == []
    assert len(Looker(host, replace(old, since_ns=DUE)).look(DUE + DAY)) == 2


def test_what_the_ledger_knows_for_less_long_is_not_late_either(host):
    """Another host has written down when it first saw the task."""
    assert Looker(host, expected(STARTS), news=[declared(expected(STARTS), DUE + 1)]).look(DUE + DAY) == []


def test_what_was_due_before_its_task_was_known_is_to_finish_within_its_time(host):
    old = expected(FINISHES, since_ns=DUE + DAY, started_ns=DUE + 2 * DAY)
    assert Looker(host, old).look(DUE + 3 * DAY) == [("breached", "finish_within")]


def test_who_triggers_a_run_waits_for_it(host):
    by_hand = expected(STARTS, slot="manual__1", dag_run_id="manual__1", since_ns=DUE + DAY)
    assert Looker(host, by_hand, news=[]).look(DUE + HOUR) == [("breached", "start_within")]


def test_what_cannot_be_read_is_told_and_harms_nobody(host, caplog):
    foreign = expected({}, model={**model("other"), "objectives": {"happiness": "high"}})
    with caplog.at_level(logging.WARNING, "batch_observability.sla"):
        assert Looker(host, foreign, expected(STARTS)).look(DUE + HOUR) == [("breached", "start_within")]
    assert [one.getMessage() for one in caplog.records if "happiness" in one.getMessage()]


# --- Time that was granted -----------------------------------------------------------------------------------------


@pytest.fixture
def granted(host):
    """Return a run that was granted 20 minutes by the ledger."""
    one = expected(FINISHES, started_ns=DUE, dag_run_id="scheduled__1")
    host.ledger.apply(Started(run=run(one), context={}))
    host.ledger.apply(Extended(run=run(one), total_s=1200))
    return one


def test_time_that_a_run_was_granted_counts(host, granted):
    looker = Looker(host, granted)
    assert looker.look(DUE + 79 * MINUTE) == []
    assert looker.look(DUE + 81 * MINUTE) == [("breached", "finish_within")]


def test_what_is_told_of_a_run_that_was_granted_time_has_its_deadline(host, granted):
    assert Looker(host, granted).look(DUE + 81 * MINUTE) == [("breached", "finish_within")]
    (row,) = host.promises()
    assert row["deadline_ns"] == row["breached_ns"] == DUE + 80 * MINUTE
    assert row["reason"] == "not finished, 1m late"


def test_a_run_that_was_granted_time_is_at_risk_before_that_is_over(host, granted):
    assert Looker(host, granted).look(DUE + 80 * MINUTE + GRACE) == [("at_risk", "finish_within")]


# --- Models as a whole ---------------------------------------------------------------------------------------------


def test_the_age_of_the_newest_success_is_a_promise(host):
    of = expected({"freshness": "10h"})
    host.ledger.apply(finished(run(of), end_ns=DUE))
    looker = Looker(host)
    told = [looker.look(DUE + hours * HOUR, freshness=True) for hours in (1, 9, 11, 12)]
    assert told == [[], [("at_risk", "freshness")], [("breached", "freshness")], []]
    host.ledger.apply(finished(run(of, "run-2"), end_ns=DUE + 13 * HOUR))
    assert looker.look(DUE + 14 * HOUR, freshness=True) == [("recovered", "freshness")]


def test_the_age_of_the_newest_success_is_a_gauge(host, dogstatsd):
    host.ledger.apply(finished(run(expected({"freshness": "10h"})), end_ns=DUE))
    watcher = Watcher(host.settings(), host.delivery("datadog"), "helper", "prod")
    watcher.look(now_ns=DUE + HOUR, gauges=False)
    watcher.look(now_ns=DUE + 2 * HOUR)
    (found,) = wait_until(lambda: dogstatsd.metrics("batch_model.freshness"), "the gauge arrives", 10)
    assert found.value == 7200
    assert (found.tag("model"), found.tag("service"), found.tag("env")) == ("churn", "churn-service", "prod")
    assert list(host.state.glob("spool/datadog/*.jsonl")) == []


def test_a_model_that_never_succeeded_grows_old_from_when_it_was_known(host):
    of = expected({"freshness": "10h"}, since_ns=DUE)
    looker = Looker(host, of)
    assert looker.look(DUE + 9 * HOUR, freshness=True) == [("at_risk", "freshness")]
    assert looker.look(DUE + 11 * HOUR, freshness=True) == [("breached", "freshness")]


def test_success_rates_are_taken_over_their_window(host):
    of = expected({"success_rate": "75%", "window": "2d"})
    ends = {"success": (1, 2, 30), "failed": (3, 31), "retrying": (32,), "skipped": (33,)}
    for outcome, hours in ends.items():
        for hour in hours:
            host.ledger.apply(finished(run(of, f"{outcome}-{hour}"), outcome, end_ns=DUE + hour * HOUR))
    looker = Looker(host)
    assert looker.look(DUE + 40 * HOUR) == []
    assert looker.look(DUE + 40 * HOUR, rates=True) == [("breached", "success_rate")]
    assert host.promises()[0]["reason"] == "3 of 5 runs in 2d succeeded, 60.00%"
    # A day later, two of the three that succeeded and one that failed are over.
    assert looker.look(DUE + 64 * HOUR, rates=True) == []
    assert looker.look(DUE + 80 * HOUR, rates=True) == [("recovered", "success_rate")]


# --- Who else looks ------------------------------------------------------------------------------------------------


def test_two_who_look_and_a_third_process_tell_each_cause_once(host):
    count = 12
    process = lookers.start(host.state, count)
    watchers = [lookers.watcher(host.state, told_by, count) for told_by in ("helper", "deadline")]
    told = []
    threads = [
        threading.Thread(target=lambda one=one: told.extend(one.look(now_ns=DUE + DAY).told)) for one in watchers
    ]
    for thread in threads:
        thread.start()
    said, _ = process.communicate(timeout=60)
    for thread in threads:
        thread.join()
    told += [tuple(one) for one in json.loads(said)]
    assert told == [("breached", "churn", "start_within")] * count
    _each_once(host, count)


def test_who_is_killed_while_he_looks_leaves_nothing_untold_and_nothing_twice(host):
    count = 12
    process = lookers.start(host.state, count)
    try:
        process.stdin.close()
        wait_until(host.promises, "something is told", 30, every=0.002)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    replay(host.delivery())
    lookers.watcher(host.state, "helper", count).look(now_ns=DUE + DAY)
    _each_once(host, count)


def test_who_is_killed_when_others_were_first_leaves_nothing_that_is_told_twice(host, monkeypatch):
    """He was about to take back what he had on disk."""
    assert lookers.watcher(host.state, "helper", 1).look(now_ns=DUE + DAY).told
    mine = replace(expected(STARTS), resource="dag-0.score", dag_id="dag-0")
    teller = Teller(host.delivery(), "check", must_claim=True)

    def taken_back(entries):
        # As far as the change it comes; before the first of the signals it dies.
        for entry in entries:
            if entry.target != LEDGER:
                os._exit(0)
            entry.remove()

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(deliver, "_remove", taken_back)
        teller.promised(mine, "breached", cause(mine, "start_within"))
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    replay(host.delivery())
    _each_once(host, 1)


def _each_once(host, count):
    assert len({row["key"] for row in host.promises() if row["breached_ns"]}) == len(host.promises()) == count
    for name in ("sla.breached", "sla.checked", "run.missed"):
        assert sorted(tags["dag_id"] for _, tags in host.points(name)) == sorted(f"dag-{n}" for n in range(count)), name
    assert len(host.events()) == count
    assert host.waiting() == []


def test_without_a_ledger_nothing_is_told_and_that_is_said(host, tmp_path, caplog):
    settings = {"ledger_url": f"sqlite:///{tmp_path}", "ledger_timeout": 0.5}
    looker = Looker(host, expected(STARTS), **settings)
    with caplog.at_level(logging.WARNING, "batch_observability.sla"):
        seen = looker.watcher.look(now_ns=DUE + HOUR)
    assert (seen.told, seen.complete) == ([], False)
    assert caplog.records
    assert (host.events(), host.records(), host.promises(), host.waiting()) == ([], [], [], [])
    assert Looker(host, expected(STARTS)).look(DUE + HOUR) == [("breached", "start_within")]


def test_a_ledger_that_cannot_be_written_is_told_nothing(host):
    """Somebody else writes, for longer than we wait: it is for the next look."""
    looker = Looker(host, expected(STARTS), ledger_timeout=0.1)
    looker.look(DUE)
    with write_locked(host.state):
        assert looker.watcher.look(now_ns=DUE + HOUR).told == []
    assert (host.events(), host.records(), host.waiting()) == ([], [], [])
    assert looker.look(DUE + HOUR) == [("breached", "start_within")]


def test_a_look_that_could_not_claim_is_not_complete(host):
    looker = Looker(host, expected(STARTS), ledger_timeout=0.1)
    looker.look(DUE)
    with write_locked(host.state):
        assert not looker.watcher.look(now_ns=DUE + HOUR, freshness=False, rates=False).complete


def test_a_scheduler_that_does_not_answer_leaves_the_look_incomplete(host):
    host.ledger.apply(finished(run(expected({"freshness": "10h"})), end_ns=DUE))
    seen = Watcher(host.settings(), host.delivery(), "helper", "prod", lambda: None).look(now_ns=DUE + DAY)
    assert not seen.complete
    assert seen.told == [("breached", "churn", "freshness")]
