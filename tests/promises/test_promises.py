"""Every broken promise is told once and in time, whatever the run is up to; kept ones are not told of at all."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.airflow_e2e.stand import settled, stand
from tests.live import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DAGS = Path(__file__).with_name("dags")
# What breaks, and how many seconds after that it may be told: while it runs, or while nothing does.
IN_RUN = {"overruns": "finish_within", "native": "finish_within", "mapped": "finish_within", "too_fast": "min_duration"}
OUTSIDE = {
    "waits_for_pool": "start_within",
    "deferred": "finish_within",
    "retried": "finish_within",
    "paused": "start_within",
    "broken": "start_within",
}
LIMIT_S = {**dict.fromkeys(IN_RUN, 5), **dict.fromkeys(OUTSIDE, 90)}
# What `resumed` promises to start within.
RESUMED_S = 60
TRIGGERED = ("healthy", "overruns", "too_fast", "native", "waits_for_pool", "deferred", "resumed", "retried", "mapped")


class Told:
    """What was told of promises on a stand."""

    def __init__(self, running):
        self._state = running.airflow.home / "batch_observability"
        self._dogstatsd = running.dogstatsd

    def rows(self):
        with closing(sqlite3.connect(self._state / "ledger.db", timeout=20)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM promises")]

    def broken(self):
        return {row["model_name"] for row in self.rows() if row["breached_ns"]}

    def lines(self, event, model):
        path = self._state / "logs" / "batch_models.jsonl"
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return [line for line in lines if line["event"] == event and line["batch_model.name"] == model]

    def counted(self, metric, model):
        found = self._dogstatsd.metrics(f"batch_model.{metric}")
        return sum(one.value for one in found if one.tag("model") == model)

    def events(self, model, alert_type):
        return [e for e in self._dogstatsd.events() if e.alert_type == alert_type and f"model:{model}" in e.tags]


def _state(airflow, dag_id, runs):
    (instance,) = airflow.task_instances(dag_id, runs[dag_id])
    return instance["state"]


def _when(text):
    return datetime.fromisoformat(text)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dags")
    shutil.copytree(DAGS, folder, dirs_exist_ok=True)
    due = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(seconds=180)
    extra = {
        "PROMISES_DUE": f"{due.minute} {due.hour}",
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
    }
    with stand(folder, **extra) as running:
        airflow = running.airflow
        for pool, slots in (("closed", 0), ("narrow", 1)):
            airflow.api("pools", "POST", {"name": pool, "slots": slots, "include_deferred": False})
        for dag_id in (*TRIGGERED, "paused", "broken"):
            airflow.wait_for_dag(dag_id)
        (folder / "broken.py").write_text("raise RuntimeError('this DAG file of Airflow is broken')\n", "utf-8")
        wait_until(airflow.import_errors, "the file is broken", 60)
        assert datetime.now(UTC) < due, "too slow a machine: the file was to be broken before its run is due"
        runs = {dag_id: airflow.trigger(dag_id) for dag_id in TRIGGERED}
        began = time.time()
        wait_until(lambda: _state(airflow, "resumed", runs) == "deferred", "it has begun", 60)
        # It started in time, and is not late because it has to wait for a worker again.
        airflow.api("pools/narrow", "PATCH", {"pool": "narrow", "slots": 0, "include_deferred": False})
        of_stand = Told(running)
        wait_until(lambda: of_stand.broken() >= {*IN_RUN, *OUTSIDE}, "all are broken", 400, of_stand.broken, every=1)
        wait_until(lambda: time.time() > began + RESUMED_S + LIMIT_S["deferred"], "all promises are over", 120)
        assert _state(airflow, "resumed", runs) == "scheduled"
        for pool in ("closed", "narrow"):
            airflow.api(f"pools/{pool}", "PATCH", {"pool": pool, "slots": 5, "include_deferred": False})
        for dag_id, run_id in runs.items():
            assert airflow.wait(dag_id, run_id, 180) == "success"
        settled(lambda: sum(bool(row["recovered_ns"]) for row in of_stand.rows()), len(OUTSIDE) + 1, "recoveries")
        yield of_stand


@pytest.mark.parametrize(("model", "objective"), [*IN_RUN.items(), *OUTSIDE.items()])
def test_a_broken_promise_is_one_row_one_count_one_event_and_one_record(told, model, objective):
    (row,) = [row for row in told.rows() if row["model_name"] == model and row["breached_ns"]]
    assert row["objective"] == objective
    assert told.counted("sla.breached", model) == 1
    (event,) = told.events(model, "error")
    assert objective in event.title
    assert len(told.lines("batch model objective breached", model)) == 1


@pytest.mark.parametrize("model", [*IN_RUN, *OUTSIDE])
def test_it_is_told_in_time(told, model):
    (line,) = told.lines("batch model objective breached", model)
    (row,) = [row for row in told.rows() if row["model_name"] == model and row["breached_ns"]]
    late = _when(line["timestamp"]).timestamp() - row["breached_ns"] / 1e9
    print(f"{model}: told {late:.1f} s after it was broken, by the {row['told_by']}")
    assert -0.1 <= late <= LIMIT_S[model]


def test_a_model_that_keeps_its_promises_is_not_told_of(told):
    assert [row for row in told.rows() if row["model_name"] == "healthy"] == []
    assert told.counted("sla.breached", "healthy") == told.counted("sla.at_risk", "healthy") == 0
    assert told.counted("sla.checked", "healthy") == 8


def test_a_task_that_waits_for_a_worker_again_has_started_in_time(told):
    assert [row for row in told.rows() if row["model_name"] == "resumed"] == []
    assert told.counted("sla.breached", "resumed") == told.counted("sla.at_risk", "resumed") == 0
    assert told.counted("sla.checked", "resumed") == 1


@pytest.mark.parametrize("model", ["overruns", "native", "mapped", "waits_for_pool", "deferred", "retried"])
def test_what_succeeds_late_stays_broken_with_its_margin_and_is_told_to_be_over_once(told, model):
    (row,) = [row for row in told.rows() if row["model_name"] == model and row["breached_ns"]]
    assert row["margin_s"] < 0
    assert row["recovered_ns"]
    assert len(told.events(model, "success")) == 1


@pytest.mark.parametrize("model", ["paused", "broken"])
def test_what_was_never_run_was_missed(told, model):
    assert told.counted("run.missed", model) == 1
    (event,) = told.events(model, "error")
    assert "was not run" in event.title


def test_nobody_complains(told):
    path = told._state / "logs" / "observer.log"
    assert not path.exists() or path.read_text("utf-8") == ""
