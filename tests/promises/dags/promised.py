"""Batch models that break their promises, each one in one way, and one that keeps them all."""

from __future__ import annotations

import ctypes
import os
import time
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator

from batch_observability import SLA, BatchModel, BatchModelMixin, batch_model, current_run

# Minute and hour, UTC, of the runs that are scheduled.
DUE = os.environ.get("PROMISES_DUE", "0 0")
START = datetime(2024, 1, 1, tzinfo=UTC)


def model(name: str, **promises: object) -> BatchModel:
    return BatchModel(name, owner="team-test", runbook="https://example.com/runbook", sla=SLA(**promises))


def task(of: BatchModel, function, **options):
    return PythonOperator(task_id="score", python_callable=batch_model(function, of), **options)


def work(seconds: float = 0.1) -> None:
    time.sleep(seconds)
    current_run().rows(read=100, written=100)


def hold() -> None:
    """Be in native code that keeps the interpreter's lock."""
    ctypes.PyDLL(None).usleep(int(15 * 1e6))


def fail_first(**context: object) -> None:
    if context["ti"].try_number == 1:
        raise ValueError("not yet")


class Wait(BatchModelMixin, BaseOperator):
    """Waits in the triggerer for a minute, unless it is said how long."""

    def __init__(self, seconds: float = 60, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.seconds = seconds

    def execute(self, context: object) -> None:
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=self.seconds)), method_name="go_on")

    def go_on(self, context: object, event: object = None) -> None:
        current_run().rows(read=1, written=1)


with DAG("healthy", schedule=None):
    task(
        model(
            "healthy",
            start_within="2m",
            finish_within="2m",
            finish_by="+1d 23:59 UTC",
            min_duration="0.05s",
            min_rows=100,
            max_rejected_ratio=0.5,
            freshness="1d",
            success_rate=0.9,
        ),
        work,
    )
with DAG("overruns", schedule=None):
    task(model("overruns", finish_within="4s"), work, op_kwargs={"seconds": 12})
with DAG("too_fast", schedule=None):
    task(model("too_fast", min_duration="1h"), work)
with DAG("native", schedule=None):
    task(model("native", finish_within="4s"), hold)
with DAG("waits_for_pool", schedule=None):
    task(model("waits_for_pool", start_within="10s"), work, pool="closed")
with DAG("deferred", schedule=None):
    Wait(task_id="score", model=model("deferred", finish_within="10s"))
with DAG("resumed", schedule=None):
    Wait(task_id="score", model=model("resumed", start_within="60s"), seconds=20, pool="narrow")
with DAG("retried", schedule=None):
    task(model("retried", finish_within="15s"), fail_first, retries=1, retry_delay=timedelta(seconds=75))
with DAG("mapped", schedule=None):
    PythonOperator.partial(
        task_id="score", python_callable=batch_model(work, model("mapped", finish_within="6s"))
    ).expand(op_kwargs=[{"seconds": 0.1}, {"seconds": 14}, {"seconds": 0.2}])
with DAG("paused", schedule=f"{DUE} * * *", start_date=START, catchup=False, is_paused_upon_creation=True):
    task(model("paused", start_within="10s"), work)
