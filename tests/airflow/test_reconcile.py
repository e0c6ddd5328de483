"""The second layer: what Airflow, ledger and journals know of a run, and how it is closed, once, or left alone."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from dataclasses import replace
from typing import NamedTuple
from uuid import uuid4

import pytest

from batch_observability.airflow import reconcile
from batch_observability.airflow.attempt import Attempt
from batch_observability.airflow.reconcile import Reconciler
from batch_observability.airflow.records import Records
from batch_observability.export import deliver
from batch_observability.export.deliver import Delivery
from batch_observability.export.target import Choice
from batch_observability.ids import derive_span_id
from batch_observability.ledger.records import Verdict
from batch_observability.sidecar import closing
from batch_observability.usage import host_name
from tests.airflow.second_layer import GONE, HERE, PLACE, Host
from tests.airflow.spooled import RUN, STAGE, points, spans
from tests.sidecar.ledger_rows import rows

HEARTBEAT = "Task did not emit heartbeat within time limit (300 seconds) and will be terminated."
TOGETHER = "its process and its observer were killed together; Airflow says failed"


@pytest.fixture
def host(state, database):
    host = Host(state, database)
    yield host
    host.close()


def look(reconciler, times=1):
    """Let it look, each time a long time after the last; return the runs that it has closed."""
    closed = []
    for _ in range(times):
        closed += reconciler.run()
        reconciler._gone = {run_id: since - 1e6 for run_id, since in reconciler._gone.items()}
    return closed


class Case(NamedTuple):
    """What Airflow says of a try, what else is known, and the outcome that follows; "" if it is left alone."""

    airflow: str | None
    known: str
    outcome: str
    error: str = ""
    past: bool = False


TABLE = [
    # Airflow says that it goes on.
    Case("running", "nothing", ""),
    Case("running", "row", ""),
    Case("running", "alive", ""),
    Case("running", "held", ""),
    Case("running", "dead", "killed", "its process and its observer are gone; Airflow has not noticed yet"),
    Case("deferred", "paused", ""),
    Case("up_for_reschedule", "paused", ""),
    Case("scheduled", "paused", ""),
    Case("queued", "paused", ""),
    # It has ended well.
    Case("success", "nothing", "success"),
    Case("success", "row", "success"),
    Case("success", "dead", "success"),
    Case("success", "alive", "success"),
    Case("success", "held", ""),
    Case("success", "paused", "success"),
    Case("success", "waiting", ""),
    Case("skipped", "nothing", "skipped"),
    Case("skipped", "row", "skipped"),
    # It has failed.
    Case("failed", "nothing", "failed", "it failed before it could be observed; see its log in Airflow"),
    Case("failed", "row", "killed", TOGETHER),
    Case("failed", "dead", "killed", TOGETHER),
    Case("failed", "alive", "killed", TOGETHER),
    Case("failed", "held", ""),
    Case("failed", "paused", "failed", "Airflow failed it while it was deferred or rescheduled"),
    Case("failed", "waiting", ""),
    # It was taken away.
    Case("removed", "row", "cancelled", "Airflow made it removed while it ran"),
    Case("upstream_failed", "row", "cancelled", "Airflow made it upstream_failed while it ran"),
    Case("upstream_failed", "nothing", ""),
    # Another try has followed.
    Case("failed", "row", "killed", TOGETHER, past=True),
    Case("failed", "held", "", past=True),
    Case("success", "row", "success", past=True),
    Case("running", "row", "cancelled", "stopped by Airflow: it was cleared while it ran", past=True),
    # Its DAG run was deleted.
    Case(None, "nothing", ""),
    Case(None, "row", "lost", "its process is gone, and Airflow has no record of it any more"),
    Case(None, "dead", "lost", "its process is gone, and Airflow has no record of it any more"),
    Case(None, "held", ""),
    Case(None, "waiting", ""),
]


@pytest.mark.parametrize("case", TABLE, ids=lambda case: f"{case.airflow}-{case.known}{'-past' * case.past}")
def test_a_run_that_nobody_told_is_closed_once_or_left_alone(host, state, case):
    if case.airflow is not None:
        started = {"start_date": None} if (case.airflow, case.known) == ("upstream_failed", "nothing") else {}
        host.airflow(case.airflow, past=case.past, **started)
    host.known(case.known)
    reconciler = host.reconciler()
    closed = look(reconciler, 3)
    if not case.outcome:
        assert closed == []
        assert host.outcome() is None
        assert spans(state, RUN) == []
        return
    assert closed == [host.run_id]
    (run,) = spans(state, RUN)
    assert (run.outcome, run.attributes["batch_model.run_id"]) == (case.outcome, host.run_id)
    assert run.attributes.get("error.message", "").removesuffix(" (in stage score)") == case.error
    (row,) = rows(state)
    assert (row["outcome"], row["closed_by"]) == (case.outcome, "scheduler")
    assert not list((state / "runs").glob("*"))


# --- When -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", ["nothing", "row", "dead", "paused"])
def test_its_sidecar_has_time_to_tell_it_first(host, state, known):
    host.airflow("success", ended_s=5)
    host.known(known)
    assert look(host.reconciler()) == []
    assert spans(state, RUN) == []


def test_a_process_that_is_gone_is_looked_at_twice(host):
    host.airflow("running")
    host.known("dead")
    reconciler = host.reconciler()
    assert reconciler.run() == []
    assert reconciler.run() == []
    assert look(reconciler, 2) == [host.run_id]


def test_what_another_host_may_have_told_is_left_alone_where_each_has_a_ledger_of_its_own(host, state):
    host.airflow("success", hostname="elsewhere")
    host.known("nothing")
    assert look(host.reconciler()) == []
    assert spans(state) == []


def test_a_task_that_is_no_batch_model_is_none_of_ours(host, state):
    host.airflow("failed")
    assert look(host.reconciler()) == []
    assert spans(state) == []


def test_dag_runs_that_ended_long_ago_are_left_alone_but_one_that_has_just_ended_is_looked_at(host, state):
    host.known("nothing")
    reconciler = host.reconciler()
    assert look(reconciler) == []
    host.airflow("success")
    with host._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE dag_run SET state = 'success', end_date = '2020-01-01 00:00:00'")
    assert look(reconciler) == []
    assert reconciler.run([("dag", "manual__1")]) == [host.run_id]


# --- How ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "outcome", "message"),
    [
        ({"heartbeat timeout": HEARTBEAT}, "lost", f"heartbeat timeout: {HEARTBEAT}"),
        ({"state mismatch": "said the executor"}, "killed", "state mismatch: said the executor"),
        # The one follows from the other.
        ({"state mismatch": "x", "heartbeat timeout": HEARTBEAT}, "lost", f"heartbeat timeout: {HEARTBEAT}"),
        ({"running": "of another kind"}, "killed", TOGETHER),
    ],
)
def test_what_the_scheduler_gave_up_is_told_with_its_reason(host, state, events, outcome, message):
    host.airflow("failed", past=True)
    host.known("row")
    for event, text in events.items():
        host.given_up(event, text)
    look(host.reconciler())
    (run,) = spans(state, RUN)
    assert (run.outcome, run.attributes["error.message"]) == (outcome, message)


@pytest.mark.parametrize("outcome", ["timed_out", "cancelled", "lost"])
def test_what_somebody_said_of_it_beforehand_counts(host, state, outcome):
    host.airflow("failed")
    host.known("dead")
    verdict = Verdict(outcome=outcome, reason="so they say", time_ns=1, run_id=host.run_id)
    assert host.delivery.ledger.apply(verdict)
    look(host.reconciler())
    (run,) = spans(state, RUN)
    assert (run.outcome, run.attributes["error.message"]) == (outcome, "so they say (in stage score)")


def test_a_run_of_a_journal_is_told_with_all_that_its_sidecar_knew(host, state):
    host.airflow("failed")
    entry = host.journal(start_told=False)
    host.declared()
    look(host.reconciler())
    (run,) = spans(state, RUN)
    (stage,) = spans(state, STAGE)
    assert (run.stage, stage.resource, stage.error) == ("score", "score", "Killed")
    assert run.start_ns == entry.observation["context"]["start_ns"]
    assert (run.attributes["batch_model.rows.read"], run.attributes["process.pid"]) == (5, GONE)
    assert run.attributes["host.name"] == host_name()
    names = [name for name, _ in points(state)]
    assert names.count("batch_model.run.started") == names.count("batch_model.run.finished") == 1


def test_a_start_that_was_told_is_not_told_again(host, state):
    host.airflow("failed")
    host.known("dead")
    look(host.reconciler())
    assert "batch_model.run.started" not in [name for name, _ in points(state)]


def test_a_run_that_was_never_heard_of_has_the_place_and_model_that_others_would_have_given_it(host, state):
    host.airflow("failed", context_carrier={"traceparent": f"00-{'a' * 32}-{'b' * 16}-00"})
    host.known("nothing")
    look(host.reconciler())
    (run,) = spans(state, RUN)
    place = Attempt(host.run_id, *(PLACE[key] for key in ("dag_id", "run_id", "task_id", "map_index", "try_number")))
    assert run.trace_id == "a" * 32
    assert int(run.span_id, 16) == place.of_run(0xAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA)["span_id"]
    assert int(run.parent, 16) == derive_span_id("airflow.task", host.run_id)
    assert (run.service, run.attributes["batch_model.owner"]) == ("churn", "team-churn")
    names = [name for name, _ in points(state)]
    assert names.count("batch_model.run.started") == names.count("batch_model.run.finished") == 1


def test_a_run_that_was_killed_in_its_second_process_has_a_stage_for_each(host, state):
    def second(observation):
        observation.add({"t": "pause", "ts": observation.phase_began_ns + 2 * 10**9})
        observation.paused_ns, observation.phase = None, 2
        observation.phase_began_ns += 9 * 10**9

    host.airflow("failed")
    host.journal(change=second)
    host.declared()
    look(host.reconciler())
    (run,) = spans(state, RUN)
    assert [stage.resource for stage in spans(state, STAGE)] == ["phase", "score", "phase"]
    assert spans(state, STAGE)[2].end_ns == run.end_ns


def test_a_row_keeps_the_process_that_it_had(host, state):
    host.airflow("failed")
    host.known("row")
    look(host.reconciler())
    (row,) = rows(state)
    assert (row["pid"], row["host"]) == (4711, host_name())


def test_a_run_that_was_cleared_while_it_ran_is_cancelled(host, state):
    """What tells it from a crash is that it was asked to end, and its journal knows that."""
    host.airflow("failed", past=True)
    asked = {"t": "asked_to_end", "ts": 1, "killed_after_s": 5.0}
    host.journal(change=lambda observation: observation.add(asked))
    host.declared()
    look(host.reconciler())
    assert host.outcome() == "cancelled"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "\x00\x00"])
def test_a_journal_that_was_cut_by_a_power_loss_keeps_no_run_open(host, state, text):
    host.airflow("failed")
    host.known("dead")
    (state / "runs" / f"{host.run_id}.json").write_text(text)
    assert look(host.reconciler(), 3) == [host.run_id]
    assert host.outcome() == "killed"
    assert not list((state / "runs").iterdir())


# --- More than one, and none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", ["row", "nothing", "dead"])
def test_two_schedulers_that_look_at_once_tell_each_run_once(host, state, known):
    others = [str(uuid4()) for _ in range(4)]
    host.airflow("failed")
    host.known(known)
    for number, run_id in enumerate(others):
        host.airflow("failed", run_id=run_id, map_index=number)
        if known == "row":
            host.open_row(run_id)
    both, closed = threading.Barrier(2), []

    def run():
        reconciler = host.reconciler()
        both.wait(20)
        closed.extend(reconciler.run())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(closed) == sorted([host.run_id, *others])
    assert sorted(run.attributes["batch_model.run_id"] for run in spans(state, RUN)) == sorted(closed)
    assert len(rows(state)) == 5


@pytest.mark.parametrize("away", ["airflow", "ledger"])
def test_where_it_cannot_look_nothing_is_told(host, state, caplog, away):
    host.airflow("failed")
    host.known("dead")
    if away == "ledger":
        (state / "ledger.db").unlink()
        (state / "ledger.db").mkdir()
        reconciler = host.reconciler()
    else:
        reconciler = host.reconciler(database="sqlite:////nonexistent/airflow.db")
    assert reconciler.run() is None
    assert spans(state) == []
    assert len(caplog.records) >= 1


def test_one_run_that_cannot_be_closed_does_not_keep_the_others(host, state, caplog, monkeypatch):
    other, finished = str(uuid4()), closing.telling.finished

    def fail_for_one(observation, *args, **kwargs):
        if observation.context.run_id == host.run_id:
            raise RuntimeError("surprise")
        return finished(observation, *args, **kwargs)

    monkeypatch.setattr(closing.telling, "finished", fail_for_one)
    host.airflow("failed")
    host.airflow("failed", run_id=other, map_index=7)
    host.open_row()
    host.open_row(other)
    assert look(host.reconciler()) == [other]
    assert f"run {host.run_id} cannot be closed" in caplog.text


def test_it_looks_back_once_for_what_ended_while_no_scheduler_ran(host, state):
    host.airflow("success")
    host.known("nothing")
    with host._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE dag_run SET state = 'success', end_date = datetime('now', '-1 hour')")
    assert look(host.reconciler()) == [host.run_id]


def test_a_journal_that_its_sidecar_holds_is_still_the_sidecars_afterwards(host):
    host.airflow("failed")
    host.known("held")
    look(host.reconciler(), 2)
    assert list((host.state / "runs").iterdir())
    assert host.journal(pid=os.getpid()).pid == os.getpid()


def test_how_far_it_looks_back_is_a_day():
    assert reconcile._LOOK_BACK.days == 1


def test_tries_from_before_a_task_was_a_batch_model_are_left_alone(host, state):
    host.airflow("success")
    host.declared()
    (path,) = (state / "models").iterdir()
    path.write_text(path.read_text().replace('"since_ns": 0', f'"since_ns": {time.time_ns()}'))
    assert look(host.reconciler(), 2) == []


def test_the_journal_of_a_cron_job_is_left_alone(host, state):
    host.journal(
        change=lambda observation: setattr(observation, "context", replace(observation.context, source="cron"))
    )
    assert look(host.reconciler(), 2) == []
    assert (state / "runs" / f"{host.run_id}.json").exists()


def test_a_run_that_it_cannot_claim_is_not_told(host, state, monkeypatch):
    sent = []

    class Taker:
        name, signals = "datadog", frozenset({"traces", "metrics", "events"})

        def send(self, batch):
            sent.append(batch)

    monkeypatch.setattr(deliver, "make_target", lambda *_: Taker())
    host.airflow("success")
    host.known("dead")
    finished = closing.telling.finished
    locks = contextlib.ExitStack()

    def locked_then(*args, **kwargs):
        database = locks.enter_context(
            contextlib.closing(sqlite3.connect(state / "ledger.db", isolation_level=None, timeout=5))
        )
        database.execute("BEGIN EXCLUSIVE")
        return finished(*args, **kwargs)

    monkeypatch.setattr(closing.telling, "finished", locked_then)
    settings = replace(host.settings, ledger_timeout=0.5, export=("datadog",))
    delivery = Delivery(settings, Choice(("datadog",), ()), 0)
    reconciler = Reconciler(settings, delivery, Records(host.database), [HERE], "test", task_spans=True)
    with locks:
        reconciler.run()
    assert [span.operation for batch in sent for span in batch.spans] == []
