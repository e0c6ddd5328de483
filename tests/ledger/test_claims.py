"""Who tells that a promise is at risk, broken or kept again: once for each cause, and only what was promised."""

from __future__ import annotations

import threading
import time

import pytest

from batch_observability.ledger.changes import Writer
from batch_observability.ledger.records import Extended, Margin, OpenPromise
from batch_observability.objective import OBJECTIVES
from tests.ledger.runs import MODEL, declared, finished, promised, recovered, run, started

BITS = {objective: 1 << bit for bit, objective in enumerate(OBJECTIVES)}
CRON = {"source": "cron", "dag_id": "", "task_id": "", "dag_run_id": "", "job": "backup", "resource": "backup"}


# --- Once for each cause -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["at_risk", "breached"])
def test_who_claims_a_cause_first_tells_it(ledger, state):
    assert ledger.apply(promised("key", state, token="a"))
    assert not ledger.apply(promised("key", state, token="b"))
    assert ledger.apply(promised("other", state, token="b"))


@pytest.mark.parametrize("state", ["at_risk", "breached"])
def test_who_claims_again_with_the_same_token_is_told_the_same(ledger, state):
    claim = promised("key", state, token="a", counts_from_due=True, due_ns=60, episode="episode")
    ledger.apply(declared(since_ns=50))
    assert ledger.apply_all([claim, promised("key", state, token="b")]) == [True, False]
    ledger.apply(recovered(before_ns=10**9))
    ledger.apply(declared(since_ns=40))
    ledger.apply(promised("another", episode="episode", token="c"))
    assert ledger.apply(claim)


def test_what_was_at_risk_is_broken_once_and_who_told_what_is_kept(ledger):
    claims = [
        promised("key", "at_risk", token="a", time_ns=1, reason="soon"),
        promised(
            "key", "breached", token="b", time_ns=2, reason="late", run_id="run-2", told_by="scheduler", missed=True
        ),
        promised("key", "breached", token="c", time_ns=3),
        promised("key", "at_risk", token="d", time_ns=4),
    ]
    assert ledger.apply_all(claims) == [True, True, False, False]
    row = ledger.promises_of(["key", "unknown"])["key"]
    assert (row.at_risk_ns, row.at_risk_token, row.breached_ns, row.breached_token) == (1, "a", 2, "b")
    assert (row.reason, row.run_id, row.told_by, row.missed) == ("late", "run-2", "scheduler", True)
    assert ledger.apply(claims[0])
    assert ledger.apply(claims[1])


def test_what_is_broken_is_no_longer_at_risk(ledger):
    assert ledger.apply_all([promised("key", token="a"), promised("key", "at_risk", token="a")]) == [True, False]


def test_all_that_was_told_of_a_promise_is_kept(ledger):
    claim = promised(
        "key",
        objective="finish_by",
        promise="06:30 Europe/London",
        map_index=3,
        run_id="run-1",
        job="job",
        due_ns=5,
        deadline_ns=6,
        reason="still running",
    )
    ledger.apply(claim)
    row = ledger.promises_of(["key"])["key"]
    for name in ("objective", "promise", "source", "env", "resource", "dag_id", "task_id", "job", "dag_run_id"):
        assert getattr(row, name) == getattr(claim, name)
    assert (row.map_index, row.run_id, row.due_ns, row.deadline_ns, row.reason) == (3, "run-1", 5, 6, "still running")
    assert (row.model_name, row.version, row.service, row.owner, row.tier) == (
        "churn",
        "1.2",
        "scoring",
        "growth",
        "high",
    )
    assert (row.model, row.missed, row.margin_s, row.recovered_ns, row.episode) == (MODEL, False, None, None, None)


def test_a_claim_is_not_lost_for_odd_values(ledger):
    odd = "nul \0 and half a pair \ud800"
    assert ledger.apply(promised(odd, reason=odd, time_ns=10**30, due_ns=-(10**30), model={"name": odd}, token=odd))
    row = ledger.promises_of([odd])[odd]
    assert (row.breached_ns, row.due_ns, row.model_name) == (2**63 - 1, 1 - 2**63, "nul \ufffd and half a pair ?")
    assert not ledger.apply(promised(odd, token="another"))


# --- Episodes ----------------------------------------------------------------------------------------------------


def test_of_an_episode_one_breach_is_open_until_it_recovers(ledger):
    def claim(key, state="breached"):
        values = {"objective": "freshness", "episode": "freshness|churn", "token": f"{key} {state}"}
        return promised(key, state, **values)

    assert ledger.apply_all([claim("1", "at_risk"), claim("2", "at_risk"), claim("1")]) == [True, True, True]
    # Neither what is new nor what was at risk before.
    assert ledger.apply_all([claim("3"), claim("2"), claim("4", "at_risk")]) == [False, False, False]
    assert ledger.apply(recovered(objective="freshness", before_ns=10**9))
    assert ledger.apply_all([claim("3"), claim("2"), claim("5", "at_risk")]) == [True, False, False]
    assert [row.key for row in ledger.open_promises()] == ["3"]


@pytest.mark.parametrize("dialect", ["postgresql"])
@pytest.mark.parametrize("was_at_risk", [True, False])
def test_an_episode_that_another_is_beginning_at_this_moment_is_waited_for(ledger, rows, was_at_risk):
    """Only a server has two who write at once; what is claimed in the same transaction is written."""
    if was_at_risk:
        ledger.apply(promised("mine", "at_risk", token="a"))
    answers = []
    mine = [promised("before"), promised("mine", episode="episode", token="a"), promised("after")]
    thread = threading.Thread(target=lambda: answers.append(ledger.apply_all(mine)))
    with ledger._engine.connect() as connection, connection.execution_options(preserve_rowcount=True).begin():
        assert Writer(ledger._statements, connection).write(promised("theirs", episode="episode", token="b"))
        thread.start()
        waits = (
            "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%promises%%'"
        )
        deadline = time.monotonic() + 8
        while rows(waits) == [{"n": 0}]:
            assert time.monotonic() < deadline, "nobody waits"
    thread.join()
    assert answers == [[True, False, True]]


# --- What was promised -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["at_risk", "breached"])
@pytest.mark.parametrize(("due_ns", "told"), [(49, False), (50, True), (51, True), (None, True)])
def test_what_was_due_before_its_task_was_known_was_not_promised(ledger, state, due_ns, told):
    claim = promised(state=state, due_ns=due_ns, counts_from_due=True)
    assert ledger.apply(promised("unknown", state, due_ns=99, counts_from_due=True)) is False
    ledger.apply(declared(since_ns=50))
    assert ledger.apply(claim) is told
    assert ledger.apply(promised("free", state, due_ns=1))


def test_a_task_that_is_declared_in_the_same_breath_is_known(ledger):
    assert ledger.apply_all([declared(since_ns=50), promised(due_ns=60, counts_from_due=True)]) == [True, True]


def test_a_task_is_known_by_its_runs_too(ledger):
    ledger.apply(started(start_ns=50))
    assert not ledger.apply(promised(due_ns=49, counts_from_due=True))
    assert ledger.apply(promised(due_ns=51, counts_from_due=True))


@pytest.mark.parametrize("make", [lambda: declared(dag_id="", task_id="backup"), lambda: started(**CRON, start_ns=50)])
def test_a_cron_job_is_a_task_without_a_dag(ledger, make):
    ledger.apply(make())
    assert not ledger.apply(promised(due_ns=49, counts_from_due=True, **CRON))
    assert ledger.apply(promised(due_ns=51, counts_from_due=True, **CRON))


@pytest.mark.parametrize("state", ["at_risk", "breached"])
@pytest.mark.parametrize("objective", ["start_within", "finish_within", "finish_by"])
def test_what_a_run_of_the_slot_has_kept_is_not_broken_by_another(ledger, state, objective):
    others = sum(BITS.values()) - BITS[objective]
    ledger.apply(finished(of=run("run-1"), kept=others))
    assert ledger.apply(promised("1", state, objective=objective))
    ledger.apply(finished(of=run("run-2", try_number=2), kept=BITS[objective]))
    assert not ledger.apply(promised("2", state, objective=objective))
    for other in ({"dag_run_id": "scheduled__2"}, {"task_id": "load"}, {"dag_id": "weekly"}, {"map_index": 1}):
        assert ledger.apply(promised(f"{other}", state, objective=objective, **other))


def test_a_cleared_task_promises_again_to_finish_within_its_time(ledger):
    ledger.apply(finished(of=run(clear_number=1), kept=BITS["finish_within"]))
    assert not ledger.apply(promised("1", clear_number=1))
    assert ledger.apply(promised("2", clear_number=2))
    assert not ledger.apply(promised("3"))


@pytest.mark.parametrize("objective", ["min_duration", "min_rows", "max_rejected_ratio"])
def test_what_each_run_promises_is_broken_by_each(ledger, objective):
    ledger.apply(finished(kept=sum(BITS.values())))
    assert ledger.apply(promised(f"{objective}|nightly.score|run-2", objective=objective, run_id="run-2"))


def test_cron_jobs_keep_nothing_for_each_other(ledger):
    ledger.apply(finished(of=run(**CRON), kept=BITS["finish_by"]))
    assert ledger.apply(promised(objective="finish_by", **CRON))


@pytest.mark.parametrize("state", ["at_risk", "breached"])
def test_a_slot_that_nobody_ran_is_told_once_and_not_by_each_mapped_task(ledger, state):
    def claim(index, slot="due 7", objective="start_within", state="breached"):
        return promised(f"{objective}|nightly.score|{index}|{slot}", state, objective=objective, map_index=index)

    assert ledger.apply(claim(-1, state="at_risk"))
    assert ledger.apply(claim(0, state=state))
    assert ledger.apply(claim(-1))
    assert not ledger.apply(claim(1, state=state))
    assert ledger.apply(claim(1, "due 8", state=state))
    assert (
        ledger.apply_all([claim(-1, objective="finish_by"), claim(1, objective="finish_by", state=state)]) == [True] * 2
    )


# --- Recovery ----------------------------------------------------------------------------------------------------


def test_what_was_broken_before_recovers_once(ledger):
    ledger.apply_all([promised("old", time_ns=10), promised("new", time_ns=20), promised("risk", "at_risk", time_ns=1)])
    assert not ledger.apply(recovered(before_ns=10, token="a"))
    assert ledger.apply(recovered(before_ns=20, token="a", time_ns=15))
    assert not ledger.apply(recovered(before_ns=20, token="b"))
    assert ledger.apply(recovered(before_ns=20, token="a"))
    assert [row.key for row in ledger.open_promises()] == ["new"]
    row = ledger.promises_of(["old"])["old"]
    assert (row.recovered_ns, row.recovered_token) == (15, "a")


def test_a_late_success_ends_what_its_own_run_broke(ledger):
    ledger.apply_all([promised("mine", time_ns=50), promised("theirs", time_ns=50)])
    assert ledger.apply(recovered(before_ns=0, key="mine"))
    assert [row.key for row in ledger.open_promises()] == ["theirs"]
    assert not ledger.apply(promised("mine", token="again"))


def test_what_recovers_is_of_one_model_objective_and_resource(ledger):
    names = ["mine", "objective", "model", "resource"]
    others = [{}, {"objective": "min_rows"}, {"model": {**MODEL, "name": "sales"}}, {"resource": "weekly.score"}]
    ledger.apply_all([promised(name, **values) for name, values in zip(names, others, strict=True)])
    assert ledger.apply(recovered(before_ns=10**9, resource="nightly.score"))
    assert {row.key for row in ledger.open_promises()} == {"objective", "model", "resource"}
    assert ledger.apply(recovered(before_ns=10**9, token="b"))
    assert {row.key for row in ledger.open_promises()} == {"objective", "model"}


def test_what_is_open_comes_newest_first(ledger):
    ledger.apply_all([promised(name, time_ns=time_ns) for name, time_ns in (("a", 1), ("c", 3), ("b", 2))])
    assert [row.key for row in ledger.open_promises()] == ["c", "b", "a"]
    assert [row.key for row in ledger.open_promises(2)] == ["c", "b"]


# --- The end of a run --------------------------------------------------------------------------------------------


def test_the_end_of_a_run_says_by_how_much_it_was_late(ledger):
    ledger.apply(promised("key"))
    margins = (
        Margin(key="key", margin_s=-2.5),
        Margin(key="unknown", margin_s=1),
        Margin(key="odd", margin_s=float("inf")),
    )
    assert ledger.apply(finished(margins=margins, token="a"))
    assert not ledger.apply(finished(margins=(Margin(key="key", margin_s=9),), token="b"))
    assert ledger.promises_of(["key", "unknown"])["key"].margin_s == -2.5


def test_a_run_is_granted_time_while_it_is_open_and_never_less(ledger, rows):
    of = run()
    assert not ledger.apply(Extended(run=of, total_s=60))
    ledger.apply(started())
    assert ledger.apply_all([Extended(run=of, total_s=1200), Extended(run=of, total_s=60)]) == [True, True]
    assert rows("SELECT extended_s, kept FROM runs") == [{"extended_s": 1200, "kept": None}]
    # Who closes it may not know of it.
    ledger.apply(finished(closed_by="scheduler", kept=5))
    assert rows("SELECT extended_s, kept FROM runs") == [{"extended_s": 1200, "kept": 5}]
    assert not ledger.apply(Extended(run=of, total_s=9000))
    ledger.apply(finished("told-whole", extended_s=7))
    assert rows("SELECT extended_s FROM runs WHERE run_id = 'told-whole'") == [{"extended_s": 7}]


# --- Declared tasks ----------------------------------------------------------------------------------------------


def test_a_model_that_never_ran_is_listed(ledger):
    ledger.apply(declared(schedule="daily", next_due_ns=70, state="paused"))
    (one,) = ledger.attainment(0, 0)
    assert (one.name, one.definition, one.next_due_ns, one.state) == ("churn", MODEL, 70, "paused")
    assert (one.last_start_ns, one.last_outcome, one.last_success_ns, one.open_runs) == (None, None, None, 0)
    assert ledger.newest_successes() == {"churn": (MODEL, 50, None)}


def test_a_declaration_that_says_nothing_new_writes_nothing(ledger, rows, dialect):
    ledger.apply_all([declared(next_due_ns=70), started(start_ns=60)])
    before = rows("SELECT * FROM tasks") + rows("SELECT * FROM models")
    versions = "SELECT xmin::text AS version FROM {0} UNION ALL SELECT xmin::text FROM {1}"
    version = rows(versions.format("tasks", "models")) if dialect == "postgresql" else None
    assert ledger.apply(declared(next_due_ns=70, since_ns=55))
    assert rows("SELECT * FROM tasks") + rows("SELECT * FROM models") == before
    if version:
        assert rows(versions.format("tasks", "models")) == version


def test_a_newer_declaration_counts_and_a_run_that_began_before_it_does_not_undo_it(ledger, rows):
    newer = {**MODEL, "version": "2"}
    ledger.apply(started(start_ns=60))
    ledger.apply(declared(model=newer, since_ns=40, schedule="hourly", next_due_ns=99, state="paused"))
    ledger.apply(finished(of=run(start_ns=60)))
    assert ledger.model_of("nightly", "score") == newer
    assert rows("SELECT first_seen_ns, last_seen_ns, schedule, next_due_ns, state FROM tasks") == [
        {"first_seen_ns": 40, "last_seen_ns": 60, "schedule": "hourly", "next_due_ns": 99, "state": "paused"}
    ]
    ledger.apply(declared(model=newer, since_ns=80))
    assert rows("SELECT first_seen_ns, next_due_ns, state FROM tasks") == [
        {"first_seen_ns": 40, "next_due_ns": None, "state": ""}
    ]


# --- What a run must know ----------------------------------------------------------------------------------------


def test_a_run_knows_when_its_first_try_began_and_what_it_was_granted(ledger):
    ledger.apply(declared(since_ns=5))
    tries = [
        run(f"try-{number}", try_number=number, start_ns=100 * number, clear_number=number // 3)
        for number in (1, 2, 3, 4)
    ]
    ledger.apply_all([finished(of=of, outcome="retrying", extended_s=of.try_number) for of in tries])
    ledger.apply_all(
        [started("other", start_ns=6, map_index=7), started("slot", start_ns=6, dag_run_id="scheduled__2")]
    )
    before = ledger.standing(run("try-5", try_number=5, clear_number=1))
    assert (before.since_ns, before.first_start_ns, before.extended_s) == (5, 300, 7)
    assert ledger.standing(tries[1]).first_start_ns == 100
    assert ledger.standing(run(clear_number=2)).first_start_ns is None


def test_a_cron_run_knows_of_itself_only(ledger):
    first, second = run("run-1", start_ns=100, **CRON), run("run-2", start_ns=200, **CRON)
    ledger.apply_all([finished(of=first, extended_s=9), started("run-2", start_ns=200, **CRON)])
    found = ledger.standing(second)
    assert (found.since_ns, found.first_start_ns, found.extended_s) == (100, 200, 0)
    assert ledger.standing(run("run-3", **CRON)).first_start_ns is None


def test_a_run_knows_what_was_told_of_its_causes(ledger):
    ledger.apply_all(
        [
            promised("risk", "at_risk", time_ns=1, map_index=2),
            promised("slot", time_ns=2, map_index=-1, dag_run_id="", due_ns=70),
            promised("run", time_ns=3, map_index=2, dag_run_id="", run_id="run-1"),
            promised("index", map_index=3),
            promised("dag-run", map_index=2, dag_run_id="scheduled__2", due_ns=71),
            promised("resource", map_index=2, resource="weekly.score"),
        ]
    )
    told = ledger.standing(run(map_index=2, due_ns=70)).told
    assert told == {"risk": (1, None), "slot": (None, 2), "run": (None, 3)}


def test_a_run_knows_what_it_may_recover(ledger):
    ledger.apply_all(
        [
            promised("mine", time_ns=2),
            promised("risk", "at_risk"),
            promised("over", time_ns=1),
            recovered(before_ns=2),
            promised("elsewhere", resource="weekly.score"),
            promised("episode", time_ns=3, resource="", objective="freshness", episode="freshness|churn"),
            promised("other", model={**MODEL, "name": "sales"}),
        ]
    )
    assert ledger.standing(run()).open == [
        OpenPromise(key="mine", objective="finish_within", breached_ns=2),
        OpenPromise(key="episode", objective="freshness", breached_ns=3),
    ]
