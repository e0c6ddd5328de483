"""Airflow's own deadlines: what is attached to DAGs, what Airflow makes of it, and what is told when one is missed."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.collection import update_dag_parsing_results_in_db
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagbag import DBDagBag
from airflow.models.deadline import Deadline
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.sdk import DAG, AsyncCallback, BaseOperator, DeadlineAlert, DeadlineReference
from airflow.serialization.definitions.dag import SerializedDAG
from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG, OperatorSerialization
from airflow.triggers.callback import CallbackTrigger
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select

from batch_observability import SLA, BatchModel, BatchModelMixin
from batch_observability.airflow import deadline, judge, registry
from batch_observability.airflow.attempt import as_text
from batch_observability.airflow.policy import dag_policy
from batch_observability.config import Settings
from batch_observability.export.deliver import Delivery
from batch_observability.export.target import Choice
from batch_observability.ledger.records import Run, Started
from batch_observability.ledger.store import Ledger
from batch_observability.sidecar.spawn import detach
from tests.live.processes import wait_until

CALLBACK = "batch_observability.airflow.deadline.judge_dag_run"
NOW = datetime.now(UTC)
DUE = NOW - timedelta(minutes=30)


class Score(BatchModelMixin, BaseOperator):
    model = BatchModel("churn", owner="t", sla=SLA(start_within="5m", finish_within="20m"))


def model(**objectives):
    return BatchModel("other", owner="t", sla=SLA(**objectives) if objectives else None)


def made(dag_id="nightly", *models, **values):
    with DAG(dag_id, start_date=datetime(2024, 1, 1), schedule=None, **values) as dag:
        for number, one in enumerate(models or [Score.model]):
            Score(task_id=f"score{number}", model=one)
    return dag


def parsed(dag):
    dag_policy(dag)
    return dag


def intervals(dag):
    return [alert.interval for alert in dag.deadline or []]


@pytest.fixture
def parsing(monkeypatch):
    """Parses as the DAG processor."""
    monkeypatch.setattr(sys, "argv", ["airflow", "dag-processor"])


# --- What is attached ------------------------------------------------------------------------------------------------


def test_a_dag_whose_model_promises_to_start_in_time_gets_a_deadline(parsing):
    (alert,) = parsed(made()).deadline
    assert alert.reference == DeadlineReference.DAGRUN_QUEUED_AT
    assert alert.interval == 300
    assert isinstance(alert.callback, AsyncCallback), "it would need a slot of the executor"
    assert alert.callback.path == CALLBACK


def test_each_promise_has_one(parsing):
    promises = ["10m", "90s", "10m"]
    assert intervals(parsed(made("many", *(model(start_within=one) for one in promises)))) == [90, 600]


@pytest.mark.parametrize("objectives", [{}, {"min_rows": 1}, {"finish_within": "20m"}, {"finish_by": "06:30 UTC"}])
def test_a_dag_without_such_a_promise_has_none(parsing, objectives):
    assert not parsed(made("plain", model(**objectives))).deadline


def test_a_dag_that_has_a_deadline_is_left_alone(parsing):
    own = DeadlineAlert(DeadlineReference.DAGRUN_LOGICAL_DATE, timedelta(hours=1), AsyncCallback(CALLBACK))
    assert parsed(made("own", deadline=own)).deadline == [own]


def test_a_dag_that_is_seen_again_keeps_what_it_has(parsing):
    dag = parsed(made())
    assert intervals(parsed(dag)) == [300]


@pytest.mark.parametrize(
    ("command", "attached"),
    [
        ("dag-processor", True),
        ("standalone", True),
        ("dags reserialize", True),
        ("scheduler", False),
        ("tasks run", False),
        ("celery worker", False),
    ],
)
def test_who_keeps_dags_attaches_and_who_runs_tasks_does_not(monkeypatch, command, attached):
    monkeypatch.setattr(sys, "argv", ["airflow", *command.split()])
    assert bool(parsed(made()).deadline) == attached


def test_it_can_be_switched_off(parsing, monkeypatch):
    monkeypatch.setenv("BATCHOBS_DEADLINE_ALERTS", "false")
    assert not parsed(made()).deadline


def test_an_airflow_without_deadlines_has_none(parsing, monkeypatch):
    monkeypatch.setitem(sys.modules, "airflow.sdk.definitions.callback", None)
    assert not parsed(made()).deadline


def test_a_deadline_that_airflow_cannot_keep_is_not_attached(parsing, monkeypatch, outside_pytest, state):
    """Attached, it would make the DAG an import error."""
    monkeypatch.setattr("airflow.serialization.decoders.decode_deadline_alert", lambda _: 1 / 0)
    assert not parsed(made()).deadline
    assert registry.declared(state)


def test_airflow_3_2_takes_durations_only(parsing, monkeypatch):
    monkeypatch.delattr("airflow.sdk.definitions.deadline.VariableInterval")
    monkeypatch.setattr("airflow.serialization.decoders.decode_deadline_alert", lambda data: data)
    assert intervals(parsed(made())) == [timedelta(minutes=5)]


def test_a_task_process_does_not_pay_for_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["airflow", "scheduler"])
    dag = made()
    began = time.process_time()
    for _ in range(100):
        dag_policy(dag)
    # Measured at the time of writing: 0.002 ms.
    assert (time.process_time() - began) / 100 < 0.001


# --- What Airflow makes of it ----------------------------------------------------------------------------------------


@pytest.fixture
def keep(database, parsing, monkeypatch):
    """Parses a DAG and keeps it in Airflow's database as the DAG processor does; returns its hash and version."""
    DagBundlesManager().sync_bundles_to_db()
    # To clear a DAG run, Airflow switches links off for the whole process.
    for each in (DagSerialization, OperatorSerialization):
        monkeypatch.setattr(each, "_load_operator_extra_links", True)

    def parse_and_keep(dag_id):
        dag = parsed(made(dag_id))
        dag.fileloc, dag.relative_fileloc = __file__, "test_deadline.py"
        lazy = LazyDeserializedDAG.from_dag(dag)
        with create_session() as session:
            if session.get(DagModel, dag_id) is None:
                update_dag_parsing_results_in_db("dags-folder", None, [lazy], {}, None, set(), session=session)
            else:
                SerializedDagModel.write_dag(lazy, "dags-folder", session=session)
            newest = SerializedDagModel.get(dag_id, session=session)
            return newest.dag_hash, DagVersion.get_latest_version(dag_id, session=session).version_number

    return parse_and_keep


def triggered(dag_id):
    """Let Airflow make a DAG run, as for a user; return its deadlines."""
    with create_session() as session:
        dag = DBDagBag().get_latest_version_of_dag(dag_id, session=session)
        run = dag.create_dagrun(
            run_id="manual__1",
            logical_date=None,
            run_after=datetime.now(UTC),
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.UI,
            state=DagRunState.QUEUED,
            session=session,
        )
        queued = run.queued_at
    return queued, deadlines(dag_id)


def deadlines(dag_id):
    with create_session() as session:
        found = select(Deadline).join(Deadline.dagrun).where(Deadline.dagrun.has(dag_id=dag_id))
        return [one.deadline_time for one in session.scalars(found)]


def test_a_dag_with_it_survives_serialization(parsing):
    serialized = DagSerialization.to_dict(parsed(made()))
    DagSerialization.validate_schema(serialized)
    assert isinstance(DagSerialization.from_dict(serialized), SerializedDAG)


def test_to_parse_again_makes_no_new_version(keep):
    first = keep("steady")
    triggered("steady")
    assert {keep("steady") for _ in range(3)} == {first}


def test_a_dag_run_has_its_deadline(keep):
    keep("queued")
    queued, found = triggered("queued")
    assert found == [queued + timedelta(minutes=5)]


def test_a_dag_run_with_it_can_be_cleared(keep):
    """With a timedelta, Airflow 3.3.2 fails (apache/airflow#70368)."""
    keep("cleared")
    _, before = triggered("cleared")
    with create_session() as session:
        clear_task_instances(
            session.scalars(select(TaskInstance).where(TaskInstance.dag_id == "cleared")).all(), session
        )
    (after,) = deadlines("cleared")
    assert after > before[0]


# --- What is told ----------------------------------------------------------------------------------------------------


class Host:
    """A host that knows `nightly.score0` for an hour as a batch model, and a DAG run that waits for half of one."""

    def __init__(self, folder):
        self.settings = Settings(
            export=("spool",),
            state_dir=str(folder / "state"),
            ledger_url=f"sqlite:///{folder / 'own.db'}",
            reconcile_after=0.1,
        )
        self.ledger = Ledger(self.settings.ledger, 10.0)
        self.delivery = Delivery(self.settings, Choice(("spool",), ()), patience_s=0)
        self.dag_run = {
            "dag_id": "nightly",
            "dag_run_id": "scheduled__1",
            "run_type": "scheduled",
            "run_after": DUE.isoformat(),
            "queued_at": (DUE + timedelta(seconds=1)).isoformat().replace("+00:00", "Z"),
            "state": "running",
        }
        self.declare(made("nightly", Score.model, model(start_within="2h"), model(min_rows=1)))

    def declare(self, dag):
        registry.declare(dag, self.settings.state_path)
        (path,) = (self.settings.state_path / "models").iterdir()
        known = json.loads(path.read_text())
        for one in known["tasks"].values():
            one["since_ns"] = ns(NOW - timedelta(hours=1))
        path.write_text(json.dumps(known))

    def look(self, waiting, **dag_run):
        frame = {"t": "deadline", "dag_run": {**self.dag_run, **dag_run}, "waiting": waiting}
        return judge.look(self.settings, self.delivery, "test", [frame]).told

    def told(self):
        return [(one.key, one.told_by, one.reason.partition(": ")[2]) for one in self.ledger.open_promises()]

    def began(self, **values):
        """Let a try of it have begun in time."""
        run = Run(
            **{
                "run_id": "try-1",
                "source": "airflow",
                "resource": "nightly.score0",
                "env": "test",
                "model": as_text(Score.model),
                "dag_id": "nightly",
                "task_id": "score0",
                "dag_run_id": "scheduled__1",
                "trace_id": 1,
                "span_id": 1,
                "start_ns": ns(DUE),
                **values,
            }
        )
        assert self.ledger.apply(Started(run=run, context={}))


def ns(moment):
    return int(moment.timestamp() * 1e6) * 1000


@pytest.fixture
def host(tmp_path):
    made_here = Host(tmp_path)
    yield made_here
    made_here.ledger.close()
    made_here.delivery.ledger.close()


KEY = f"start_within|nightly.score0|-1|due {ns(DUE)}"


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (None, "it waits for its upstream tasks"),
        ("scheduled", "it waits for a slot of its pool"),
        ("queued", "it waits for a worker"),
        ("upstream_failed", "its upstream failed"),
    ],
)
def test_what_still_waits_is_told(host, state, why):
    assert host.look({"score0": state}) == [("breached", "churn", "start_within")]
    assert host.told() == [(KEY, "deadline", why)]


def test_it_is_told_once(host):
    host.look({"score0": None})
    assert host.look({"score0": None}) == []
    assert len(host.told()) == 1


def test_each_instance_of_a_mapped_task_waits(host):
    host.look({"score0_0": "scheduled", "score0_11": "scheduled"}, run_type="manual")
    assert {key for key, _, _ in host.told()} == {f"start_within|nightly.score0|{n}|scheduled__1" for n in (0, 11)}


@pytest.mark.parametrize("task", ["score1", "score2", "plain", "score0_x"])
def test_what_has_time_left_or_promises_nothing_is_not_told(host, task):
    assert host.look({task: None}) == []


def test_a_retry_that_waits_is_not_told(host):
    host.began()
    assert host.look({"score0": "queued"}) == []


def test_another_instance_that_ran_does_not_excuse_it(host):
    host.began(map_index=3)
    assert host.look({"score0_3": "queued", "score0_4": "queued"}, run_type="manual")
    assert [key for key, _, _ in host.told()] == ["start_within|nightly.score0|4|scheduled__1"]


def test_a_backfill_is_not_late(host):
    assert host.look({"score0": None}, run_type="backfill") == []


def test_what_was_due_before_it_was_a_batch_model_is_not_late(host):
    assert host.look({"score0": None}, run_after=(NOW - timedelta(days=1)).isoformat()) == []


def test_a_host_that_does_not_parse_asks_the_ledger(host):
    host.look({"score0": None}, run_type="manual", dag_run_id="first")
    for path in (host.settings.state_path / "models").iterdir():
        path.unlink()
    assert host.look({"score0": None}, run_type="manual", dag_run_id="second")


# --- In the triggerer ------------------------------------------------------------------------------------------------


@pytest.fixture
def triggerer(host, monkeypatch):
    """Runs the callback as the triggerer does; returns what Airflow keeps of it. The states are Airflow's answer."""
    for name in ("STATE_DIR", "LEDGER_URL", "RECONCILE_AFTER"):
        value = getattr(host.settings, name.lower())
        monkeypatch.setenv(f"BATCHOBS_{name}", str(value))
    monkeypatch.setattr(deadline, "_MARGIN_S", 0.1)

    def run(states, dag_run=None):
        async def answer(dag_id, run_id):
            return states(dag_id, run_id) if callable(states) else states

        monkeypatch.setattr(deadline, "_states", answer)
        context = {"dag_run": host.dag_run if dag_run is None else dag_run, "deadline": {}}

        async def events():
            return [event.payload async for event in CallbackTrigger(CALLBACK, {"context": context}).run()]

        return asyncio.run(events())[-1]

    yield run
    if deadline._judges._channel is not None:
        deadline._judges._channel.close()
    deadline._judges = deadline._Judges()


def test_a_missed_deadline_is_judged_by_a_process_of_ours(host, triggerer):
    assert triggerer({"score0": "scheduled", "other": "running"}) == {"state": "success", "body": "1 tasks wait"}
    wait_until(host.told, "the breach is told", 30, lambda: list((host.settings.state_path / "logs").glob("*")))
    assert host.told() == [(KEY, "deadline", "it waits for a slot of its pool")]


def test_many_at_once_are_judged_by_one_process(host, triggerer, monkeypatch):
    started = []
    monkeypatch.setattr(deadline, "detach", lambda *args: started.append(args) or detach(*args))
    for number in range(300):
        frame = {"t": "deadline", "dag_run": {**host.dag_run, "dag_run_id": str(number)}, "waiting": {"score0": None}}
        deadline._judges.send(host.settings, frame)
    triggerer({"score0": "scheduled"}, {**host.dag_run, "run_type": "manual"})
    wait_until(lambda: len(host.told()) == 2, "all are judged", 60, host.told)
    assert len(started) == 1


def test_the_process_is_let_go_when_no_more_comes_and_does_what_it_has(host, triggerer, monkeypatch):
    triggerer({"score0": "scheduled"})
    deadline._judges.close_if_idle()
    assert deadline._judges._channel is not None, "more may come"
    monkeypatch.setattr(deadline, "_KEPT_FOR_S", 0.0)
    deadline._judges.close_if_idle()
    assert deadline._judges._channel is None
    wait_until(host.told, "the breach is told", 30)
    triggerer({"score0": "scheduled"}, {**host.dag_run, "run_type": "manual"})
    wait_until(lambda: len(host.told()) == 2, "another process judges", 30, host.told)


def test_a_dag_run_that_has_begun_needs_no_process(host, triggerer):
    assert triggerer({"score0": "running", "other": "success"})["body"] == "no task waits"
    assert deadline._judges._channel is None


@pytest.mark.parametrize("dag_run", [{}, {"dag_id": 7}, None])
def test_what_goes_wrong_does_not_reach_the_triggerer(triggerer, outside_pytest, dag_run):
    def broken(dag_id, run_id):
        raise RuntimeError("Airflow does not answer")

    payload = triggerer(broken, dag_run)
    assert payload == {"state": "success", "body": "not judged"}


def test_the_event_loop_goes_on_meanwhile(host, triggerer, monkeypatch):
    """One tick of the loop each 10 ms, while a process is started."""
    longest = 0.0

    async def ticking(dag_run):
        nonlocal longest
        work = asyncio.create_task(judged(dag_run))
        while not work.done():
            began = time.perf_counter()
            await asyncio.sleep(0.01)
            longest = max(longest, time.perf_counter() - began)
        return await work

    judged = deadline._judge
    monkeypatch.setattr(deadline, "_judge", ticking)
    assert triggerer({"score0": None})["body"] == "1 tasks wait"
    print(f"longest tick of 10 ms: {longest * 1000:.0f} ms")
    assert longest < 0.5
