"""
The hooks that Airflow calls. Each is guarded, and waits for nothing.

In the task process they begin and end a run; in scheduler and API server they hand what ended to a helper process.
"""

from __future__ import annotations

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
    """Start the scheduler's helper with the scheduler, and load what tasks need, so that no later hook has to."""
    if type(component).__name__ == "Job" and compat.is_scheduler():
        scheduler.start_helper()
        observed.load()


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
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    """End a run."""
    _end(task_instance, Outcome.SUCCESS, previous_state=previous_state)


@hookimpl
@guarded(None)
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:
    """End a run."""
    _end(task_instance, Outcome.SKIPPED, previous_state=previous_state)


@hookimpl
@guarded(None)
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:
    """End a run; in other processes than the task's, hand over who ended it."""
    outcome = _OUTCOMES.get(compat.state_of(task_instance), Outcome.FAILED)
    if outcome is Outcome.FAILED and compat.is_timeout(error):
        outcome = Outcome.TIMED_OUT
    _end(task_instance, outcome, error, previous_state=previous_state)


def _end(task_instance: Any, outcome: Outcome, error: Any = None, *, previous_state: Any) -> None:
    if not compat.is_task_process_object(task_instance):
        if previous_state is None:
            scheduler.set_by_a_person(task_instance, outcome.value)
        elif error is not None and compat.state_of(task_instance) != "up_for_retry":
            # The id of one that is retried is that of its next try by now (models/taskinstance.py:1917).
            scheduler.given_up(task_instance, str(error))
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
        return
    error = compat.exception_of(task_instance)
    timed_out = outcome is Outcome.FAILED and compat.is_timeout(error)
    observed.end(task_instance, Outcome.TIMED_OUT if timed_out else outcome, error)


@hookimpl
@guarded(None)
def on_dag_run_success(dag_run: Any) -> None:
    """Hand an ended DAG run to the helper."""
    scheduler.dag_run_ended(dag_run)


@hookimpl
@guarded(None)
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    """Hand an ended DAG run to the helper."""
    scheduler.dag_run_ended(dag_run, msg)
