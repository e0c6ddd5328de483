"""
Times the hooks of all other plugins in a task process, for the table of deaths: a plugin of that Airflow.

Besides the time on the clock it takes that of the processor: many tasks at once share two of them, and a hook that has
to wait for its turn does not cost more. One JSON line for each hook goes to the file FAULTS_FOLDER/hooks.jsonl, with
how slow the processor was just then.
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
from pace import slowness

hookimpl = pluggy.HookimplMarker("airflow")


class _Task:
    """The task that this process runs."""

    run_id = ""


def _timed(name: str, task_instance: Any = None) -> Iterator[Any]:
    # Elsewhere the hooks are called with rows of the database.
    if type(task_instance).__name__ == "RuntimeTaskInstance":
        _Task.run_id = str(task_instance.id)
    slow = slowness()
    began, began_cpu = time.perf_counter(), time.thread_time()
    try:
        return (yield)
    finally:
        if _Task.run_id:
            _write(hook=name, took=time.perf_counter() - began, cpu=time.thread_time() - began_cpu, slowness=slow)


def _write(**values: Any) -> None:
    line = json.dumps({"run_id": _Task.run_id, **values}).encode() + b"\n"
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


@hookimpl(wrapper=True)
def before_stopping() -> Iterator[Any]:
    """What ends the phase of a task that is deferred."""
    return (yield from _timed("end"))


class StopwatchPlugin(AirflowPlugin):
    name = "stopwatch"
    listeners = (sys.modules[__name__],)
