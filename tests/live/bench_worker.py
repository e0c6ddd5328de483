"""
Airflow's LocalExecutor, in a process as the scheduler's is, that runs what the benchmark tells it to and times it.

A script, run by `tests.live.bench_stand` in the environment of one variant. All is Airflow's own: the executor's
worker processes, the supervisor, the task process. Stop watches are put around their functions before the worker
processes are forked, the same ones in every variant.

Talks by Unix datagrams of JSON: gets lists of workloads, sends a message when ready, two from each task process and
one from each supervisor. `time.perf_counter` is one clock for all processes (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

hookimpl = pluggy.HookimplMarker("airflow")


class _Task:
    """The task that this worker process supervises, or this task process runs."""

    run_id = ""
    began = 0.0
    hooks: dict[str, float]
    phases: dict[str, float]


def main() -> None:
    """Runs workloads as they come, until it is killed."""
    hide(os.environ["BENCH_HIDDEN"].split())
    from airflow.executors.local_executor import LocalExecutor
    from airflow.executors.workloads import ExecuteTask

    # As in the scheduler, which has both loaded when it forks its workers: its own code, and all plugins.
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.listeners.listener import get_listener_manager

    del SchedulerJobRunner
    listeners = get_listener_manager().pm.get_plugins()
    names = sorted(getattr(listener, "__name__", type(listener).__name__) for listener in listeners)
    if "batch_observability.airflow.listener" in names:
        from batch_observability.airflow import observed

        # Our listener does it when the scheduler starts; and starts a helper there, which has nothing to do here.
        observed.load()
    time_supervisor(json.loads(os.environ["BENCH_AGENTS"]))
    time_task_process()
    commands = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    commands.bind(os.environ["BENCH_COMMANDS"])
    executor = LocalExecutor(parallelism=int(os.environ["BENCH_PARALLELISM"]))
    executor.start()
    send({"kind": "ready", "name": os.environ["BENCH_NAME"], "listeners": names})
    while True:
        for workload in json.loads(commands.recv(1 << 20)):
            executor.queue_workload(ExecuteTask.model_validate(workload), session=None)
        # The slot of the task before is free a moment after its supervisor has told us its time.
        while executor.queued_tasks:
            executor.heartbeat()
            time.sleep(0.005)


def hide(distributions: list[str]) -> None:
    """Makes installed distributions look as if they were not: no entry points, so no plugin, policy or provider."""
    modules: list[Any] = [importlib.metadata]
    with suppress(ImportError):
        # Airflow prefers the backport on Python 3.11.
        import importlib_metadata

        modules.append(importlib_metadata)
    for module in modules:
        found: Callable[..., Iterator[Any]] = module.distributions

        def visible(found: Callable[..., Iterator[Any]] = found, **kwargs: Any) -> Iterator[Any]:
            # By the folder's name: reading the metadata of all would cost each task process 0.1 s.
            return (one for one in found(**kwargs) if one._path.name.partition("-")[0] not in distributions)

        module.distributions = visible


def time_supervisor(agents: dict[str, dict[str, str]]) -> None:
    """
    Times what a worker process does for each task: from the start of the supervisor to the end of the task process.

    A run id that begins with a name in `agents` gets that environment: which Agent its sidecar is to find.
    """
    from airflow.executors.base_executor import BaseExecutor

    run_workload = BaseExecutor.run_workload

    def timed(workload: Any, **kwargs: Any) -> int:
        os.environ.update(agents.get(workload.ti.run_id.partition("-")[0], {}))
        _Task.run_id, _Task.hooks, _Task.phases = workload.ti.run_id, {}, {}
        own, children = _cpu_s(resource.RUSAGE_SELF), _cpu_s(resource.RUSAGE_CHILDREN)
        _Task.began = time.perf_counter()
        code: int = run_workload(workload, **kwargs)
        ended = time.perf_counter()
        send(
            {
                "kind": "supervised",
                "run_id": _Task.run_id,
                "exit_code": code,
                "began": _Task.began,
                "ended": ended,
                "supervisor_cpu": _cpu_s(resource.RUSAGE_SELF) - own,
                "task_cpu": _cpu_s(resource.RUSAGE_CHILDREN) - children,
            }
        )
        return code

    BaseExecutor.run_workload = staticmethod(timed)


def time_task_process() -> None:
    """Times what a task process does: its three phases, and the hooks of listeners in them if there are any."""
    from airflow.sdk.execution_time import task_runner

    main = task_runner.main
    for name in ("startup", "run", "finalize"):
        setattr(task_runner, name, _timed_phase(name, getattr(task_runner, name)))
    get_listener_manager = task_runner.get_listener_manager

    def with_stop_watch() -> Any:
        manager = get_listener_manager()
        if manager.has_listeners and not manager.pm.is_registered(_StopWatch):
            manager.pm.register(_StopWatch)
        return manager

    def timed() -> None:
        began = time.perf_counter()
        # The benchmark opens a pidfd, which tells it when the process has ended; Airflow may notice that late.
        send({"kind": "process", "run_id": _Task.run_id, "pid": os.getpid(), "began": began})
        try:
            main()
        finally:
            send(
                {
                    "kind": "task",
                    "run_id": _Task.run_id,
                    "ended": time.perf_counter(),
                    "memory_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                    "phases": _Task.phases,
                    "hooks": _Task.hooks,
                }
            )

    task_runner.get_listener_manager = with_stop_watch
    task_runner.main = timed


def _timed_phase(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            _Task.phases[name] = time.perf_counter() - began

    return timed


class _StopWatch:
    """A listener around all others."""

    @staticmethod
    @hookimpl(wrapper=True)
    def on_task_instance_running() -> Iterator[Any]:
        return (yield from _timed_hook("start"))

    @staticmethod
    @hookimpl(wrapper=True)
    def on_task_instance_success() -> Iterator[Any]:
        return (yield from _timed_hook("end"))


def _timed_hook(name: str) -> Iterator[Any]:
    began = time.perf_counter()
    try:
        return (yield)
    finally:
        _Task.hooks[name] = time.perf_counter() - began


def send(message: dict[str, Any]) -> None:
    """Sends a message to the benchmark."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as results:
        results.sendto(json.dumps(message).encode(), os.environ["BENCH_RESULTS"])


def _cpu_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
