"""
Calls the hooks of observed tasks as Airflow's workers do: `python -m tests.faults.hooked`.

One process that has loaded Airflow, and for each line on its standard input, a JSON object of environment variables, a
fork that runs the start hook, a little work and the end hook. It answers with a JSON line: how long both hooks took, in
milliseconds, whether the run was observed, how long the start of a process took that does nothing, and how slow the
machine is just now. The time in which it waited for a processor does not count: that is not the hooks' doing.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from airflow.sdk import DAG, BaseOperator, TaskInstanceState
from airflow.sdk.configuration import conf

from batch_observability import BatchModel, BatchModelMixin, current_run
from batch_observability.airflow import listener, observed
from tests.airflow.fakes import task_instance
from tests.faults.plugins.pace import slowness


class Score(BatchModelMixin, BaseOperator):
    """A batch model."""

    model = BatchModel("budgeted", owner="team-faults", service="budgeted")


def main() -> None:
    """Serve until the input ends."""
    # Airflow's worker has read its configuration long before it forks; and is a fork itself of a scheduler that has
    # loaded what runs need.
    conf.get("core", "executor")
    observed.load()
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
    slow = slowness()
    children = []
    bare = _milliseconds(lambda: children.append(os.posix_spawn("/bin/true", ["true"], os.environ)))
    os.waitpid(children[0], 0)
    instance = task_instance(task, id=uuid4())
    start = _milliseconds(lambda: listener.on_task_instance_running(task_instance=instance))
    active = current_run().active
    with current_run().stage("load"):
        current_run().rows(read=100)
    instance.state = TaskInstanceState.SUCCESS
    end = _milliseconds(
        lambda: listener.on_task_instance_success(previous_state=TaskInstanceState.RUNNING, task_instance=instance)
    )
    active = active and not current_run().active
    print(json.dumps({"start": start, "end": end, "bare": bare, "slowness": slow, "observed": active}), flush=True)
    os._exit(0)


def _milliseconds(action: Callable[[], object]) -> float:
    began, waited = time.perf_counter(), _waited_s()
    action()
    waited = _waited_s() - waited
    return (time.perf_counter() - began - waited) * 1e3


def _waited_s() -> float:
    """How long this thread was ready to run and did not (/proc/PID/schedstat, in nanoseconds); 0 if it is not told."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


if __name__ == "__main__":
    main()
