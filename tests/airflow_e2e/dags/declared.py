"""Every way to declare a batch model, and every way in which a try can end that leaves time for a last word."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, task
from airflow.sdk.exceptions import AirflowSkipException

from batch_observability import SLA, BatchModel, BatchModelMixin, batch_model, current_run

MODEL = BatchModel(
    "churn-score", version="3", service="churn", owner="team-risk", tier=1, sla=SLA(finish_within="20m", min_rows=0)
)


class Score(BatchModelMixin, BaseOperator):
    """Two nested stages, and a log line of every kind in each."""

    template_fields = ("part",)

    def __init__(self, part="all", **kwargs):
        super().__init__(**kwargs)
        self.part = part

    def execute(self, context):
        self.log.info("before any stage")
        with self.batch.stage("load"):
            self.batch.rows(read=10, written=9, rejected=1)
            logging.getLogger("mine").warning("stdlib line in load")
            with self.batch.stage("parse"):
                print("printed line in parse")
                thread = threading.Thread(target=logging.getLogger("mine").warning, args=("thread line in parse",))
                thread.start()
                thread.join()
        print("printed line after the stages")
        self.batch.measure("auc", 0.9, unit="fraction")
        self.batch.event("hello")
        return self.part


class Flaky(BatchModelMixin, BaseOperator):
    """Its model is in the class; its first try fails."""

    model = MODEL

    def execute(self, context):
        if context["ti"].try_number == 1:
            with self.batch.stage("load"):
                raise RuntimeError("the first try fails")


class Patient(BatchModelMixin, BaseOperator):
    """Gives its slot back in the middle."""

    model = MODEL

    def execute(self, context):
        with self.batch.stage("ask"):
            self.batch.rows(read=1)
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=1)), method_name="go_on")

    def go_on(self, context, event=None):
        with self.batch.stage("answer"):
            self.batch.rows(read=2)


def score(rows):
    with current_run().stage("score"):
        current_run().rows(read=rows)
    return rows


with DAG("declared", start_date=datetime(2024, 1, 1), schedule=None, default_args={"retry_delay": timedelta(0)}):
    Score(task_id="mixin", model=MODEL)
    Score.partial(task_id="mapped", model=MODEL).expand(part=["a", "b", "c"])
    Flaky(task_id="retried", retries=1)
    Patient(task_id="deferred")
    task.batch_model(score, task_id="decorated", model=MODEL).expand(rows=[1, 2])
    PythonOperator(task_id="wrapped", python_callable=batch_model(score, MODEL), op_kwargs={"rows": 5})

    @task
    @batch_model(name="other-score", owner="team-risk")
    def skipped():
        raise AirflowSkipException("nothing to do today")

    @task
    def unobserved():
        return current_run().trace_id

    skipped() >> EmptyOperator(task_id="after")
    unobserved()
