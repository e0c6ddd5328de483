"""
The tasks that `tests.live.bench` runs, the same work for every variant, with what each variant asks of a task.

Copied into the DAG folder of the benchmark's Airflow; `BENCH_VARIANT` is set by `tests.live.bench_stand`.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

if TYPE_CHECKING:
    from collections.abc import Callable

STAGES = ("load", "features", "score", "check", "publish")
# About 60 ms on the machine that the benchmark was written on: fixed work, so that what is lost shows as time.
STAGE_STEPS = 700_000

VARIANT = os.environ["BENCH_VARIANT"]

if VARIANT == "observed":
    from batch_observability import SLA, BatchModel, batch_model, current_run

    MODEL = BatchModel(
        name="benchmark", version="1", owner="team-benchmark", sla=SLA(finish_within="5m", success_rate=0.99)
    )

    def observed(function: Callable[[], None]) -> Callable[[], None]:
        """A batch model."""
        declared: Callable[[], None] = batch_model(MODEL)(function)
        return declared

    def stage(name: str) -> Any:
        """A stage of the run."""
        return current_run().stage(name)

    def rows(count: int) -> None:
        """Rows of the run."""
        current_run().rows(read=count)

elif VARIANT.startswith("ddtrace"):
    from ddtrace.trace import tracer

    def observed(function: Callable[[], None]) -> Callable[[], None]:
        """A span around the task. Airflow ends the process by os._exit: without the flush its spans are lost."""

        def traced() -> None:
            with tracer.trace("task.run", resource=function.__name__):
                function()
            tracer.flush()

        return traced

    def stage(name: str) -> Any:
        """A span."""
        return tracer.trace("task.stage", resource=name)

    def rows(count: int) -> None:
        """A number on the span."""
        if span := tracer.current_span():
            span.set_metric("rows.read", count)

else:

    def observed(function: Callable[[], None]) -> Callable[[], None]:
        """The task as it is."""
        return function

    def stage(_name: str) -> Any:
        """Nothing."""
        return contextlib.nullcontext()

    def rows(_count: int) -> None:
        """Nothing."""


def trivial() -> None:
    """Does nothing worth mentioning."""
    rows(1)


def stages() -> None:
    """Five stages of real work."""
    for name in STAGES:
        with stage(name):
            sum(math.sqrt(number) for number in range(STAGE_STEPS))
            rows(STAGE_STEPS)


def two_seconds() -> None:
    """Waits for two seconds, so that all that uses the processor is the observer."""
    with stage("wait"):
        time.sleep(2)


for work in (trivial, stages, two_seconds):
    with DAG(dag_id=f"bench_{work.__name__}", schedule=None):
        PythonOperator(task_id="task", python_callable=observed(work))
