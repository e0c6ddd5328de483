"""What becomes of a run in the ledger: started, paused, judged, ended, told twice, told in the wrong order."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from batch_observability.ledger.records import Measurement, Stage
from batch_observability.ledger.store import LedgerError
from tests.ledger.runs import MODEL, finished, paused, run, started, verdict


def test_a_run_that_has_started_is_open_with_all_that_is_known_of_it(ledger):
    of = run("run-1", due_ns=5, map_index=3, try_number=2)
    assert ledger.apply(started("run-1", {"dag": "nightly"}, due_ns=5, map_index=3, try_number=2, start_ns=of.start_ns))
    (found,) = ledger.open_runs("airflow")
    assert found.run == of
    assert found.context == {"dag": "nightly"}
    assert (found.paused_ns, found.state) == (None, "")


def test_a_run_of_a_cron_job_is_open_among_those_of_cron(ledger):
    values = {"dag_id": "", "task_id": "", "dag_run_id": "", "try_number": 0, "job": "backup", "resource": "backup"}
    ledger.apply(started("run-1"))
    ledger.apply(started("run-2", source="cron", **values))
    assert [found.run.job for found in ledger.open_runs("cron")] == ["backup"]


def test_a_run_that_has_ended_is_kept_with_all_that_was_told(ledger, rows):
    of = run()
    told = {
        "outcome": "failed",
        "error_type": "ValueError",
        "error_message": "no rows",
        "stage": "load",
        "signal": "SIGKILL",
        "exit_code": 3,
        "rows_read": 10,
        "rows_written": 0,
        "rows_rejected": 7,
        "memory_peak": 1 << 40,
        "memory_limit": 1 << 41,
        "cpu_s": 1.5,
        "waiting_s": 2.5,
        "dropped": 4,
    }
    assert ledger.apply(finished(of=of, **told))
    (row,) = rows("SELECT * FROM runs")
    assert {name: row[name] for name in told} == told
    assert (row["start_ns"], row["end_ns"]) == (of.start_ns, of.start_ns + 10**9)
    assert (row["trace_id"], row["span_id"]) == ("f" * 32, "f" * 16)
    assert (row["token"], row["closed_by"]) == ("token-1", "sidecar")
    assert (row["model_name"], row["model_version"], row["owner"]) == ("churn", "1.2", "growth")
    assert json.loads(row["model"]) == MODEL
    (stage,) = rows("SELECT * FROM stages")
    assert stage == {
        "run_id": "run-1",
        "position": 0,
        "span_id": "fffffffffffffffe",
        "parent_id": "ffffffffffffffff",
        "name": "load",
        "start_ns": 1,
        "end_ns": 2,
        "error_type": "E",
    }
    (measurement,) = rows("SELECT * FROM measurements")
    assert measurement == {
        "run_id": "run-1",
        "position": 0,
        "name": "auc",
        "value": 0.5,
        "unit": "ratio",
        "time_ns": 3,
    }


def test_what_only_an_open_run_needs_goes_when_it_is_closed(ledger, rows):
    ledger.apply(started(context={"large": "x" * 1000}))
    ledger.apply(paused(state='{"rows": 3}', paused_ns=7))
    assert ledger.paused_state("run-1") == '{"rows": 3}'
    ledger.apply(finished())
    assert rows("SELECT context, state, paused_ns FROM runs") == [{"context": None, "state": None, "paused_ns": None}]
    assert ledger.paused_state("run-1") is None
    assert ledger.open_runs("airflow") == []


def test_told_twice_is_told_once(ledger, rows):
    tables = ("models", "tasks", "runs", "stages", "measurements")
    changes = [started(context={"a": 1}), paused(), verdict(run_id="run-1")]
    for upto in (changes, [*changes, finished()]):
        first = ledger.apply_all(upto)
        before = {table: rows(f"SELECT * FROM {table}") for table in tables}
        again = ledger.apply_all(upto)
        assert {table: rows(f"SELECT * FROM {table}") for table in tables} == before
    assert first == [True, True, True, True]
    assert again == [False, False, False, True]


def test_who_closes_a_run_first_has_closed_it(ledger, rows):
    ledger.apply(started())
    assert ledger.apply(finished(outcome="failed", token="a"))
    assert not ledger.apply(finished(outcome="lost", token="b", closed_by="scheduler"))
    assert ledger.apply(finished(outcome="failed", token="a"))
    assert rows("SELECT outcome, token, closed_by FROM runs") == [
        {"outcome": "failed", "token": "a", "closed_by": "sidecar"}
    ]
    assert rows("SELECT count(*) AS n FROM stages") == [{"n": 1}]


def test_a_start_or_pause_that_comes_late_does_not_open_a_run_again(ledger):
    ledger.apply(finished())
    assert not ledger.apply(started())
    assert not ledger.apply(paused())
    assert ledger.outcomes(["run-1"]) == {"run-1": "success"}


def test_a_pause_makes_a_run_known_and_its_state_is_the_newest(ledger):
    assert ledger.apply(paused(state="1", paused_ns=1))
    assert ledger.apply(paused(state="2", paused_ns=2))
    (found,) = ledger.open_runs("airflow")
    assert (found.state, found.paused_ns, found.context) == ("2", 2, {})


def test_a_start_keeps_what_a_pause_told(ledger):
    ledger.apply(paused(state="1"))
    assert ledger.apply(started())
    assert ledger.paused_state("run-1") == "1"


def test_of_two_verdicts_the_first_stays(ledger):
    ledger.apply(started())
    assert ledger.verdict("run-1") is None
    assert ledger.apply(verdict("timed_out", run_id="run-1", time_ns=1))
    assert ledger.apply(verdict("cancelled", dag_id="nightly", dag_run_id="scheduled__1", time_ns=2))
    assert ledger.verdict("run-1") == verdict("timed_out", run_id="run-1", time_ns=1)


def test_a_verdict_of_a_dag_run_is_about_its_open_runs(ledger):
    ledger.apply_all([started("open"), started("other", dag_run_id="scheduled__2"), finished(of=run("ended"))])
    assert ledger.apply(verdict(dag_id="nightly", dag_run_id="scheduled__1"))
    assert [name for name in ("open", "other", "ended") if ledger.verdict(name)] == ["open"]


def test_a_verdict_stays_when_the_run_is_closed(ledger):
    ledger.apply_all([started(), verdict(run_id="run-1"), finished(outcome="timed_out")])
    assert ledger.verdict("run-1").outcome == "timed_out"


def test_a_verdict_on_a_run_that_is_not_known_yet_says_so_and_waits_for_it(ledger):
    assert not ledger.apply(verdict("cancelled", run_id="run-1"))
    ledger.apply_all([started(), verdict("timed_out", dag_id="nightly", dag_run_id="scheduled__2")])
    assert ledger.verdict("run-1").outcome == "cancelled"
    assert ledger.verdict("run-2") is None


def test_a_verdict_on_a_dag_run_without_open_runs_says_so(ledger):
    assert not ledger.apply(verdict(dag_id="nightly", dag_run_id="scheduled__1"))


def test_a_verdict_that_names_no_run_is_refused(ledger):
    """A DAG run without a name would be all cron jobs."""
    ledger.apply(started("run-1", source="cron", dag_id="", dag_run_id=""))
    with pytest.raises(LedgerError, match="names neither") as raised:
        ledger.apply(verdict())
    assert not raised.value.retry
    assert ledger.verdict("run-1") is None


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 1, 3), (3, 1, 2)])
@pytest.mark.parametrize("make", [lambda of: started(of.run_id, try_number=of.try_number), lambda of: finished(of=of)])
def test_a_retry_is_linked_with_the_try_before_whichever_comes_first(ledger, rows, order, make):
    ledger.apply(started("mapped", try_number=1, map_index=0))
    for number in order:
        ledger.apply(make(run(f"try-{number}", try_number=number)))
    linked = {row["run_id"]: row["retry_of"] for row in rows("SELECT run_id, retry_of FROM runs")}
    assert linked == {"mapped": None, "try-1": None, "try-2": "try-1", "try-3": "try-2"}


def test_the_model_of_a_task_is_that_of_its_newest_run(ledger, rows):
    def of(version, start_ns):
        return finished(of=run(f"v{version}", model={**MODEL, "version": version}, start_ns=start_ns))

    assert ledger.model_of("nightly", "score") is None
    ledger.apply_all([of("2", 2000), of("1", 1000)])
    ledger.apply(of("0", 500))
    assert ledger.model_of("nightly", "score")["version"] == "2"
    ledger.apply(of("3", 3000))
    assert ledger.model_of("nightly", "score") == {**MODEL, "version": "3"}
    (row,) = rows("SELECT * FROM models")
    assert (row["name"], row["first_seen_ns"], row["last_seen_ns"]) == ("churn", 500, 3000)
    assert json.loads(row["definition"])["version"] == "3"


def test_a_run_is_not_lost_for_odd_values(ledger, rows):
    odd = "nul \0 and half a pair \ud800"
    of = run(start_ns=10**30, pid=-(10**30), model={"name": odd, "tier": None}, host=odd)
    stage = Stage(span_id=1, parent_id=2, name=odd, start_ns=1, end_ns=10**30)
    measurements = (Measurement(name="nan", value=math.nan), Measurement(name="inf", value=math.inf))
    ledger.apply(started("run-1", {"text": odd}, model=of.model))
    assert ledger.open_runs("airflow")[0].context == {"text": odd}
    assert ledger.apply(finished(of=of, end_ns=10**30, error_message=odd, stages=(stage,), measurements=measurements))
    (row,) = rows("SELECT * FROM runs")
    assert row["error_message"] == row["model_name"] == row["host"] == "nul \ufffd and half a pair ?"
    assert (row["start_ns"], row["end_ns"], row["pid"]) == (2**63 - 1, 2**63 - 1, -(2**63) + 1)
    assert rows("SELECT * FROM measurements") == []


def test_a_change_that_is_no_plain_value_is_refused_and_nothing_is_written(ledger):
    with pytest.raises(LedgerError, match="not JSON serializable") as raised:
        ledger.apply_all([started("run-1"), started("run-2", {"thing": object()})])
    assert not raised.value.retry
    assert ledger.outcomes(["run-1", "run-2"]) == {}


def test_many_changes_keep_their_order(ledger):
    runs = [run(f"run-{number}") for number in range(300)]
    changes = [change for of in runs for change in (finished(of=of, token="a"), finished(of=replace(of), token="b"))]
    assert ledger.apply_all(changes) == [True, False] * 300
