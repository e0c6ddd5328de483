"""What is due of batch models and why it has not begun, from Airflow's own records."""

from __future__ import annotations

import itertools
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.errors import ParseImportError
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.models.taskreschedule import TaskReschedule
from sqlalchemy import create_engine, insert

from batch_observability import SLA, BatchModel
from batch_observability.airflow.attempt import as_text
from batch_observability.airflow.expected import expected
from batch_observability.airflow.records import Records
from batch_observability.airflow.registry import Declared
from batch_observability.ledger import records as ledger

NOW = datetime(2026, 3, 29, 6, 0, tzinfo=UTC)
SINCE = NOW - timedelta(days=1)
MODEL = as_text(BatchModel("churn", owner="t", sla=SLA(start_within="5m", finish_by="06:30 Europe/London")))
UNTIMED = as_text(BatchModel("scores", owner="t", sla=SLA(min_rows=1)))
MINUTE = timedelta(minutes=1)


def ns(moment):
    return int(moment.timestamp()) * 10**9


class Airflow:
    """An Airflow's database with one DAG `dag`, whose next run is due in an hour; `score` of it is a batch model."""

    def __init__(self, path, empty):
        # Not the file: a part of it may be in the log of what was written last.
        with closing(sqlite3.connect(empty.removeprefix("sqlite:///"))) as source, closing(sqlite3.connect(path)) as to:
            source.backup(to)
        self.url = f"sqlite:///{path}"
        self.engine = create_engine(self.url)
        self.models = {("dag", "score"): Declared(MODEL, 7)}
        self.numbers = itertools.count(1)

    def add(self, table, *rows, **values):
        with self.engine.begin() as connection:
            connection.execute(insert(table.__table__), list(rows) or [values])

    def dag(self, **values):
        known = {"dag_id": "dag", "bundle_name": "files", "relative_fileloc": "dag.py", "is_paused": False}
        upcoming = NOW + timedelta(hours=1)
        slot = {"next_dagrun": upcoming, "next_dagrun_create_after": upcoming, "timetable_summary": "0 6 * * *"}
        self.add(
            DagModel,
            **{
                **known,
                **slot,
                "is_stale": False,
                "max_active_tasks": 16,
                "max_consecutive_failed_dag_runs": 0,
                "has_task_concurrency_limits": False,
                "fileloc": "/dags/dag.py",
                **values,
            },
        )

    def run(self, run_id="due", **values):
        """Record a DAG run that was due 20 minutes ago."""
        due = NOW - 20 * MINUTE
        known = {"dag_id": "dag", "run_id": run_id, "run_type": "scheduled", "state": "running"}
        dates = {"run_after": due, "queued_at": due + timedelta(seconds=2), "logical_date": None}
        self.add(DagRun, **{**known, **dates, "clear_number": 0, **values})

    def instance(self, state, run_id="due", *, past=False, **values):
        """Record a task instance, or a try of it that is over; return its id."""
        key = uuid4()
        table, name = (TaskInstanceHistory, "task_instance_id") if past else (TaskInstance, "id")
        place = {"dag_id": "dag", "task_id": "score", "run_id": run_id, "map_index": -1, name: key}
        self.add(table, **{**place, "state": state, "pool": "default_pool", "try_number": 1, **values})
        return key

    def ask(self, now=NOW, since=SINCE):
        answer = expected(Records(self.url), self.models, "test", now, since)
        assert answer is not None
        return answer

    def due(self, **at):
        return self.ask(**at)[0]

    def the_one(self, **at):
        (one,) = self.due(**at)
        return one


@pytest.fixture
def airflow(tmp_path, database):
    made = Airflow(tmp_path / "airflow.db", database)
    yield made
    made.engine.dispose()


# --- DAG runs that exist ---------------------------------------------------------------------------------------------


def test_a_scheduled_run_is_due_when_airflow_may_run_it(airflow):
    airflow.dag()
    airflow.run()
    airflow.instance("running", start_date=NOW - 10 * MINUTE)
    one = airflow.the_one()
    due = ns(NOW - 20 * MINUTE)
    assert (one.due_ns, one.slot, one.backfill) == (due, f"due {due}", False)
    assert (one.resource, one.dag_id, one.task_id, one.dag_run_id, one.map_index) == (
        "dag.score", "dag", "score", "due", -1,
    )  # fmt: skip
    assert (one.source, one.env, one.model, one.since_ns) == ("airflow", "test", MODEL, 7)
    assert (one.started_ns, one.never_ran, one.settled) == (ns(NOW - 10 * MINUTE), False, False)
    assert one.why == "it is running"


@pytest.mark.parametrize("kind", ["manual", "asset_triggered"])
@pytest.mark.parametrize(("queued", "due"), [(NOW - MINUTE, NOW - MINUTE), (NOW - 30 * MINUTE, NOW - 20 * MINUTE)])
def test_what_was_triggered_is_due_once_it_is_queued_and_may_run(airflow, kind, queued, due):
    airflow.dag()
    airflow.run(run_type=kind, queued_at=queued)
    airflow.instance(None, try_number=0)
    assert (airflow.the_one().due_ns, airflow.the_one().slot) == (ns(due), "due")


def test_a_backfill_says_that_it_is_one(airflow):
    airflow.dag()
    airflow.run(run_type="backfill")
    airflow.instance(None, try_number=0)
    assert airflow.the_one().backfill
    assert airflow.the_one().slot == "due"


@pytest.mark.parametrize(
    ("state", "run_state", "why"),
    [
        (None, "queued", "the DAG run waits in the queue"),
        (None, "running", "it waits for its upstream tasks"),
        ("scheduled", "running", "it waits for a slot of its pool"),
        ("queued", "running", "it waits for a worker"),
        ("upstream_failed", "failed", "its upstream failed"),
    ],
)
def test_what_has_not_begun_says_why(airflow, state, run_state, why):
    airflow.dag()
    airflow.run(state=run_state, end_date=NOW - MINUTE if run_state == "failed" else None)
    # Airflow gives what it fails itself a start.
    begun = NOW - 5 * MINUTE if state == "upstream_failed" else None
    airflow.instance(state, try_number=int(state == "queued"), start_date=begun)
    one = airflow.the_one()
    assert (one.started_ns, one.never_ran, one.why, one.settled) == (None, True, why, False)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("deferred", "it is deferred"),
        ("up_for_retry", "it waits to be retried"),
        ("up_for_reschedule", "it waits to look again"),
        ("failed", "it failed"),
        ("awaiting_input", "it is awaiting input"),
    ],
)
def test_what_has_begun_and_has_not_succeeded_says_why(airflow, state, why):
    airflow.dag()
    airflow.run()
    airflow.instance(state, start_date=NOW - 3 * MINUTE)
    one = airflow.the_one()
    assert (one.started_ns, one.why, one.settled) == (ns(NOW - 3 * MINUTE), why, False)


@pytest.mark.parametrize("state", ["success", "skipped", "removed"])
def test_what_has_succeeded_or_is_not_wanted_is_settled(airflow, state):
    airflow.dag()
    airflow.run(state="success", end_date=NOW - MINUTE)
    airflow.instance(state, start_date=NOW - 3 * MINUTE)
    assert airflow.the_one().settled
    assert airflow.the_one().why == ""


def test_a_paused_dag_is_why_what_it_has_begun_does_not_go_on(airflow):
    airflow.dag(is_paused=True)
    airflow.run(state="queued")
    airflow.instance(None, try_number=0)
    airflow.run("other")
    airflow.instance("running", "other", start_date=NOW)
    assert {one.dag_run_id: one.why for one in airflow.due()} == {
        "due": "its DAG is paused",
        "other": "it is running",
    }


def test_each_instance_of_a_mapped_task_is_due(airflow):
    airflow.dag()
    airflow.run()
    for index in range(3):
        airflow.instance("running", map_index=index, start_date=NOW)
    assert sorted(one.map_index for one in airflow.due()) == [0, 1, 2]


def test_the_start_is_that_of_the_first_try(airflow):
    airflow.dag()
    airflow.run()
    airflow.instance("up_for_retry", past=True, start_date=NOW - 15 * MINUTE)
    airflow.instance("up_for_retry", past=True, start_date=NOW - 10 * MINUTE, try_number=2)
    airflow.instance("queued", try_number=3)
    assert airflow.the_one().started_ns == ns(NOW - 15 * MINUTE)


def test_tries_from_before_a_clear_do_not_count(airflow):
    airflow.dag()
    airflow.run(clear_number=1, queued_at=NOW - 12 * MINUTE)
    airflow.instance("success", past=True, start_date=NOW - 15 * MINUTE)
    airflow.instance("up_for_retry", past=True, start_date=NOW - 10 * MINUTE, try_number=2)
    # A task instance that was cleared keeps the start of the try before.
    airflow.instance("scheduled", try_number=2, start_date=NOW - 15 * MINUTE)
    assert (airflow.the_one().started_ns, airflow.the_one().clear_number) == (ns(NOW - 10 * MINUTE), 1)


def test_a_task_that_ran_while_another_of_its_dag_run_was_cleared_keeps_its_time(airflow):
    airflow.dag()
    airflow.run(clear_number=1, queued_at=NOW - 12 * MINUTE)
    airflow.instance("running", start_date=NOW - 15 * MINUTE)
    assert (airflow.the_one().started_ns, airflow.the_one().clear_number) == (ns(NOW - 15 * MINUTE), 0)


def test_a_sensor_that_is_rescheduled_began_when_it_first_looked(airflow):
    airflow.dag()
    airflow.run()
    key = airflow.instance("running", start_date=NOW - MINUTE)
    for minutes in (9, 5):
        at = NOW - minutes * MINUTE
        airflow.add(TaskReschedule, ti_id=key, start_date=at, end_date=at, duration=0, reschedule_date=at)
    assert airflow.the_one().started_ns == ns(NOW - 9 * MINUTE)


@pytest.mark.parametrize("state", ["scheduled", "queued"])
def test_what_was_deferred_and_waits_for_a_worker_again_has_begun(airflow, state):
    airflow.dag()
    airflow.run()
    airflow.instance(state, start_date=NOW - 9 * MINUTE, next_method="go_on")
    one = airflow.the_one()
    assert (one.started_ns, one.never_ran, one.settled) == (ns(NOW - 9 * MINUTE), False, False)


@pytest.mark.parametrize(
    ("state", "ended", "wanted"),
    [
        ("running", None, True),
        ("queued", None, True),
        ("success", timedelta(hours=23), True),
        ("success", timedelta(hours=25), False),
        ("failed", timedelta(hours=23), True),
        # Its finish_by may be up to two days after it failed.
        ("failed", timedelta(days=2), True),
        ("failed", timedelta(days=4), False),
    ],
)
def test_a_dag_run_that_is_over_is_left_out(airflow, state, ended, wanted):
    airflow.dag()
    airflow.run(state=state, end_date=NOW - ended if ended else None)
    airflow.instance("failed", start_date=SINCE - timedelta(days=9))
    assert bool(airflow.due()) == wanted


def test_other_tasks_and_models_that_no_clock_judges_are_left_out(airflow):
    airflow.models["dag", "untimed"] = Declared(UNTIMED, 7)
    airflow.dag(next_dagrun_create_after=NOW)
    airflow.run()
    for task_id in ("score", "untimed", "plain"):
        airflow.instance("running", task_id=task_id, start_date=NOW)
    assert {one.task_id for one in airflow.due()} == {"score"}
    assert {one.task_id for one in airflow.ask()[1]} == {"score", "untimed"}


# --- DAG runs that should exist --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "the scheduler has not made its DAG run"),
        ({"is_paused": True}, "its DAG is paused"),
        ({"exceeds_max_non_backfill": True}, "as many runs of its DAG go on as may (max_active_runs)"),
    ],
)
def test_a_slot_without_a_dag_run_is_due(airflow, values, why):
    due = NOW - 7 * MINUTE
    airflow.dag(next_dagrun=due, next_dagrun_create_after=due, **values)
    one = airflow.the_one()
    assert (one.due_ns, one.slot, one.dag_run_id, one.map_index) == (ns(due), f"due {ns(due)}", "", -1)
    assert (one.never_ran, one.settled, one.why) == (True, False, why)


def test_a_slot_and_its_run_are_one_cause(airflow):
    due = NOW - 20 * MINUTE
    airflow.dag(next_dagrun=due, next_dagrun_create_after=due)
    missing = airflow.the_one()
    airflow.run()
    airflow.instance(None, try_number=0)
    assert airflow.the_one().dag_run_id == "due"
    assert airflow.the_one().key("start_within") == missing.key("start_within")


def test_a_manual_run_of_the_same_date_takes_the_place(airflow):
    due = NOW - 7 * MINUTE
    airflow.dag(next_dagrun=due, next_dagrun_create_after=due)
    airflow.run(run_type="manual", logical_date=due, state="success", end_date=NOW)
    assert airflow.due() == []


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({"next_dagrun_create_after": NOW + timedelta(seconds=1)}, 0),
        ({"next_dagrun_create_after": None, "next_dagrun": None}, 0),
        ({"allowed_run_types": ["manual"]}, 0),
        ({"allowed_run_types": ["manual", "scheduled"]}, 1),
    ],
)
def test_what_is_not_to_be_scheduled_is_not_due(airflow, values, count):
    airflow.dag(**{"next_dagrun": NOW, "next_dagrun_create_after": NOW, **values})
    assert len(airflow.due()) == count


@pytest.mark.parametrize("stale", [False, True])
def test_an_import_error_does_not_make_less_due(airflow, stale):
    """After a minute Airflow calls the DAGs of a broken file stale."""
    airflow.dag(next_dagrun_create_after=NOW, is_stale=stale, is_paused=True)
    airflow.add(ParseImportError, bundle_name="files", filename="dag.py", timestamp=NOW)
    assert airflow.the_one().why == "its DAG has an import error"


def test_a_dag_that_is_gone_is_not_due(airflow):
    """Airflow's own mark of an import error stays when the file is deleted."""
    airflow.dag(next_dagrun_create_after=NOW, is_stale=True, has_import_errors=True)
    airflow.run()
    airflow.instance(None, try_number=0)
    assert airflow.ask() == ([], [])


# --- What the ledger is told of models -------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["", "paused", "import error"])
def test_a_task_is_told_with_its_schedule(airflow, state):
    airflow.dag(is_paused=state == "paused")
    if state == "import error":
        airflow.add(ParseImportError, bundle_name="files", filename="dag.py", timestamp=NOW)
    assert airflow.ask()[1] == [
        ledger.Declared(
            dag_id="dag",
            task_id="score",
            source="airflow",
            model=MODEL,
            since_ns=7,
            schedule="0 6 * * *",
            next_due_ns=ns(NOW + timedelta(hours=1)),
            state=state,
        )
    ]


def test_a_task_without_a_schedule_has_no_next_time(airflow):
    airflow.dag(next_dagrun_create_after=None, timetable_summary=None)
    (one,) = airflow.ask()[1]
    assert (one.schedule, one.next_due_ns) == ("", None)


def test_an_airflow_that_does_not_answer_is_none(tmp_path):
    gone = Records(f"sqlite:///{tmp_path / 'nothing' / 'airflow.db'}")
    assert expected(gone, {("dag", "score"): Declared(MODEL, 7)}, "test", NOW, SINCE) is None


@pytest.mark.thorough
def test_a_thousand_tasks_with_twenty_thousand_instances_are_quick(airflow):
    dags = [f"dag{number:03}" for number in range(250)]
    for dag_id in dags:
        airflow.dag(dag_id=dag_id)
    airflow.models = {(dag_id, f"score{task}"): Declared(MODEL, 7) for dag_id in dags for task in range(4)}
    runs = [(dag_id, f"run{number}") for dag_id in dags for number in range(20)]
    dates = {"run_after": NOW, "queued_at": NOW, "end_date": NOW - MINUTE, "clear_number": 0}
    kinds = {"run_type": "scheduled", "state": "success"}
    airflow.add(DagRun, *({"dag_id": dag_id, "run_id": run_id, **kinds, **dates} for dag_id, run_id in runs))
    kinds = {"state": "success", "pool": "default_pool", "map_index": -1, "start_date": NOW, "try_number": 1}
    airflow.add(
        TaskInstance,
        *(
            {"id": uuid4(), "dag_id": dag_id, "run_id": run_id, "task_id": f"score{task}", **kinds}
            for dag_id, run_id in runs
            for task in range(4)
        ),
    )
    airflow.due()  # imports, and SQLAlchemy's own preparation
    began = time.process_time()
    found, declared = airflow.ask()
    took = time.process_time() - began
    assert (len(found), len(declared)) == (20_000, 1000)
    # Measured at the time of writing: 0.8 s.
    print(f"1,000 tasks, 20,000 instances: {took:.2f} s")
    assert took < 3
