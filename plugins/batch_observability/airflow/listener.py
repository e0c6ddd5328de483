"""
The hooks that Airflow calls. Each is guarded, and waits for nothing.

In the task process they begin and end a run; in the scheduler they hand what ended to a helper process.
"""

from __future__ import annotations

import sys
from typing import Any

import pluggy

from batch_observability.airflow import compat, observed, policy, scheduler
from batch_observability.airflow.declared import model_of
from batch_observability.guard import guarded
from batch_observability.schema import Outcome

hookimpl = pluggy.HookimplMarker("airflow")

_OUTCOMES = {
    "success": Outcome.SUCCESS,
    "skipped": Outcome.SKIPPED,
    "failed": Outcome.FAILED,
    "up_for_retry": Outcome.RETRYING,
}


@hookimpl
@guarded(None)
def on_starting(component: Any) -> None:
    """Start the scheduler's helper with the scheduler, so that no later hook has to."""
    if type(component).__name__ == "Job" and "scheduler" in sys.argv[1:3]:
        scheduler.start_helper()


@hookimpl
@guarded(None)
def on_task_instance_running(task_instance: Any) -> None:
    """Begin a run, if the task is a batch model."""
    if not compat.is_task_process_object(task_instance):
        return
    model = model_of(task_instance.task)
    if model is not None:
        observed.begin(task_instance, model)
        # At parse time the policy saw the mapped task that this one was made of.
        policy.task_policy(task_instance.task)


@hookimpl
@guarded(None)
def on_task_instance_success(task_instance: Any) -> None:
    """End a run."""
    _end(task_instance, Outcome.SUCCESS)


@hookimpl
@guarded(None)
def on_task_instance_skipped(task_instance: Any) -> None:
    """End a run."""
    _end(task_instance, Outcome.SKIPPED)


@hookimpl
@guarded(None)
def on_task_instance_failed(task_instance: Any, error: Any) -> None:
    """End a run."""
    if compat.is_task_process_object(task_instance):
        _end(task_instance, _OUTCOMES.get(compat.state_of(task_instance), Outcome.FAILED), error)


def _end(task_instance: Any, outcome: Outcome, error: Any = None) -> None:
    if not compat.is_task_process_object(task_instance):
        return
    if observed.open_task_instance() is None:
        last, model = observed.last_run(), model_of(task_instance.task)
        if model is None or (last is not None and last.run_id == str(task_instance.id)):
            return
        # It failed before it ran, for example in rendering its templates.
        observed.begin(task_instance, model)
    observed.end(task_instance, outcome, error)


@hookimpl
@guarded(None)
def before_stopping(component: Any) -> None:
    """
    Pause a run that was deferred or rescheduled: for these there is no hook of their own.

    A run that has ended is still open here if the listener of another plugin raised and kept the hook from us.
    """
    task_instance = observed.open_task_instance()
    if type(component).__name__ != "TaskRunnerMarker" or task_instance is None:
        return
    outcome = _OUTCOMES.get(compat.state_of(task_instance))
    if outcome is None:
        observed.pause()
    else:
        observed.end(task_instance, outcome, compat.exception_of(task_instance))


@hookimpl
@guarded(None)
def on_dag_run_success(dag_run: Any) -> None:
    """Hand an ended DAG run to the helper."""
    scheduler.dag_run_ended(dag_run)


@hookimpl
@guarded(None)
def on_dag_run_failed(dag_run: Any) -> None:
    """Hand an ended DAG run to the helper."""
    scheduler.dag_run_ended(dag_run)
