"""What is asked of the ledger."""

from __future__ import annotations

import time
from datetime import timedelta

from tests.ledger.runs import MODEL, ago_ns, declared, finished, promised, recovered, run, started


def test_open_runs_come_oldest_first(ledger):
    for name, start_ns in (("b", 2), ("c", 3), ("a", 1)):
        ledger.apply(started(name, start_ns=start_ns))
    ledger.apply(finished(of=run("c", start_ns=3)))
    assert [found.run.run_id for found in ledger.open_runs("airflow")] == ["a", "b"]
    assert ledger.open_runs("cron") == []


def test_outcomes_tell_ended_open_and_unknown_runs_apart(ledger):
    names = [f"run-{number}" for number in range(1200)]
    ledger.apply_all([finished(of=run(name), stages=(), measurements=()) for name in names])
    ledger.apply(started("open"))
    assert ledger.outcomes([*names, "open", "unknown"]) == {**dict.fromkeys(names, "success"), "open": None}
    assert ledger.outcomes([]) == {}


def test_what_is_not_known_is_none(ledger):
    assert ledger.verdict("run-1") is None
    assert ledger.paused_state("run-1") is None
    assert ledger.model_of("nightly", "score") is None
    assert ledger.observed_tasks() == {}


def test_known_tasks_are_those_of_the_last_400_days(ledger):
    ledger.apply_all(
        [
            started("new", task_id="new"),
            finished(of=run("old", task_id="old", start_ns=ago_ns(timedelta(days=399)))),
            finished(of=run("older", task_id="older", start_ns=ago_ns(timedelta(days=401)))),
            started("cron", source="cron", dag_id="", task_id="", job="backup"),
        ]
    )
    assert ledger.observed_tasks() == {("nightly", "new"): MODEL, ("nightly", "old"): MODEL}
    assert list(ledger.known_tasks("cron")) == [("", "backup")]


def test_known_tasks_are_known_since_their_first_run_or_declaration(ledger):
    now_ns = time.time_ns()
    ledger.apply_all([started("a", start_ns=now_ns - 5), declared(task_id="never-ran", since_ns=now_ns - 9)])
    ledger.apply_all([started("b", start_ns=now_ns), declared(since_ns=now_ns - 7)])
    assert ledger.known_tasks("airflow") == {
        ("nightly", "score"): (MODEL, now_ns - 7),
        ("nightly", "never-ran"): (MODEL, now_ns - 9),
    }


def test_info_says_what_is_in_it(ledger, url, dialect):
    first = run("first", start_ns=time.time_ns() - 10**12)
    ledger.apply_all([finished(of=first), finished(of=run("second"), outcome="lost"), started("third")])
    info = ledger.info()
    assert info["dialect"] == dialect
    assert info["revision"] == "0002"
    assert info["size"] > 10_000
    assert (info["runs"], info["open"], info["outcomes"]) == (3, 1, {"lost": 1, "success": 1})
    assert info["oldest_ns"] == first.start_ns < info["newest_ns"]
    assert ledger.shared == (dialect == "postgresql")


def test_info_counts_breaches(ledger):
    ledger.apply_all([promised("a"), promised("b"), promised("c", "at_risk"), recovered(before_ns=0, key="a")])
    info = ledger.info()
    assert (info["breaches"], info["open_breaches"]) == (2, 1)


def test_info_of_an_empty_ledger(ledger):
    info = ledger.info()
    assert (info["runs"], info["open"], info["outcomes"], info["oldest_ns"]) == (0, 0, {}, None)


def test_pruning_deletes_what_ended_long_ago_and_nothing_that_is_open(ledger, rows):
    long_ago, lately = ago_ns(timedelta(days=11)), ago_ns(timedelta(days=9))
    ledger.apply_all(
        [
            *(finished(of=run(f"old-{number}", start_ns=long_ago + number)) for number in range(600)),
            finished(of=run("ended-lately", start_ns=long_ago), end_ns=lately),
            started("open", start_ns=long_ago),
        ]
    )
    assert ledger.prune(timedelta(days=10)) == 600
    assert {row["run_id"] for row in rows("SELECT run_id FROM runs")} == {"ended-lately", "open"}
    for table in ("stages", "measurements"):
        assert rows(f"SELECT DISTINCT run_id FROM {table}") == [{"run_id": "ended-lately"}]
    assert ledger.prune(timedelta(days=10)) == 0


def test_pruning_deletes_promises_that_are_over_and_none_that_is_open(ledger, rows):
    long_ago, lately = ago_ns(timedelta(days=11)), ago_ns(timedelta(days=9))
    ledger.apply_all([promised(f"recovered-{number}", time_ns=long_ago) for number in range(600)])
    ledger.apply(recovered(before_ns=time.time_ns(), time_ns=long_ago))
    ledger.apply(promised("recovered-lately", time_ns=long_ago))
    ledger.apply(recovered(before_ns=time.time_ns(), time_ns=lately, token="later"))
    ledger.apply_all(
        [
            promised("open", time_ns=long_ago),
            promised("at-risk", "at_risk", time_ns=long_ago),
            promised("at-risk-lately", "at_risk", time_ns=lately),
        ]
    )
    assert ledger.prune(timedelta(days=10)) == 0
    found = rows("SELECT key FROM promises")
    assert {row["key"] for row in found} == {"recovered-lately", "open", "at-risk-lately"}
