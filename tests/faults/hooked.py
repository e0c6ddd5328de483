"""
Calls the hooks of observed tasks as Airflow's workers do: `python -m tests.faults.hooked`.

One process that has loaded Airflow, and for each line on its standard input, a JSON object of environment variables, a
fork that runs the start hook, a little work and the end hook. It answers with a JSON line: how long both hooks took, in
milliseconds, and how long the start of a process took that does nothing, which says how busy the machine is.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from datetime import datetime
from uuid import uuid4

from airflow.sdk import DAG, BaseOperator, TaskInstanceState
from airflow.sdk.configuration import conf

from batch_observability import BatchModel, BatchModelMixin, current_run
from batch_observability.airflow import listener
from tests.airflow.fakes import task_instance


class Score(BatchModelMixin, BaseOperator):
    """A batch model."""

    model = BatchModel("budgeted", owner="team-faults", service="budgeted")


def main() -> None:
    """Serve until the input ends."""
    # Airflow's worker has read its configuration long before it forks.
    conf.get("core", "executor")
    with DAG("budgets", start_date=datetime(2024, 1, 1), schedule=None):
        task = Score(task_id="score")
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _observe(task, json.loads(line))
        os.waitpid(pid, 0)


def _observe(task: BaseOperator, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    logging.disable()
    began = time.perf_counter()
    nothing = os.posix_spawn("/bin/true", ["true"], os.environ)
    bare = time.perf_counter() - began
    os.waitpid(nothing, 0)
    instance = task_instance(task, id=uuid4())
    began = time.perf_counter()
    listener.on_task_instance_running(task_instance=instance)
    start = time.perf_counter() - began
    with current_run().stage("load"):
        current_run().rows(read=100)
    instance.state = TaskInstanceState.SUCCESS
    began = time.perf_counter()
    listener.on_task_instance_success(task_instance=instance)
    end = time.perf_counter() - began
    print(json.dumps({"start": start * 1e3, "end": end * 1e3, "bare": bare * 1e3}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
