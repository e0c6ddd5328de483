"""
Times the hooks of all other plugins in a task process, for the table of deaths: a plugin of that Airflow.

Besides the time on the clock it tells how long the process waited for a processor meanwhile: many tasks at once share
two of them, and that is not the hook's doing. One JSON line for each hook goes to the file FAULTS_FOLDER/hooks.jsonl.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pluggy
from airflow.plugins_manager import AirflowPlugin

hookimpl = pluggy.HookimplMarker("airflow")


def _waited_s() -> float:
    """How long this thread was ready to run and did not (proc_pid_schedstat, in nanoseconds)."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def _timed(name: str, task_instance: Any) -> Iterator[Any]:
    waited, began = _waited_s(), time.perf_counter()
    try:
        return (yield)
    finally:
        took, waited = time.perf_counter() - began, _waited_s() - waited
        values = {"run_id": str(getattr(task_instance, "id", "")), "hook": name, "took": took, "waited": waited}
        line = json.dumps(values).encode() + b"\n"
        file = os.open(Path(os.environ["FAULTS_FOLDER"], "hooks.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, line)
        os.close(file)


@hookimpl(wrapper=True)
def on_task_instance_running(task_instance: Any) -> Iterator[Any]:
    return (yield from _timed("start", task_instance))


@hookimpl(wrapper=True)
def on_task_instance_success(task_instance: Any) -> Iterator[Any]:
    return (yield from _timed("end", task_instance))


@hookimpl(wrapper=True)
def on_task_instance_failed(task_instance: Any) -> Iterator[Any]:
    return (yield from _timed("end", task_instance))


@hookimpl(wrapper=True)
def on_task_instance_skipped(task_instance: Any) -> Iterator[Any]:
    return (yield from _timed("end", task_instance))


class StopwatchPlugin(AirflowPlugin):
    name = "stopwatch"
    listeners = (sys.modules[__name__],)
