"""
The cluster policy: gives observed tasks their link to the trace, whichever way their model is declared, and keeps our
listener from standing in the way of DAGs that Airflow would refuse for it.

Called at every parse, for every DAG and task: it is quick and harms nothing.
"""

from __future__ import annotations

import sys
from typing import Any

import pluggy

from batch_observability.airflow import compat
from batch_observability.airflow.declared import model_of
from batch_observability.guard import guarded

hookimpl = pluggy.HookimplMarker("airflow.policy")


@hookimpl
@guarded(None)
def dag_policy(dag: Any) -> None:
    """
    Write down which tasks are batch models, attach deadlines; withdraw our listener where it stands in the way.

    Airflow makes such a DAG an import error where any listener is registered, for there is nobody to call it when the
    task ends (dag_processing/dagbag.py). The policy is asked just before. Only this process is concerned, which parses:
    the scheduler keeps its listener, and tasks have theirs elsewhere.
    """
    if any(getattr(task, "end_from_trigger", False) for task in dag.tasks):
        compat.withdraw_listener("batch_observability.airflow.listener")
    # `airflow dags reserialize` and `airflow dags test` keep DAGs too: theirs are to be the same.
    if not compat.is_dag_processor() and sys.argv[1:2] != ["dags"]:
        return
    settings = compat.settings()
    if compat.is_dag_processor():
        from batch_observability.airflow import registry

        registry.declare(dag, settings.state_path)
    if settings.deadline_alerts:
        from batch_observability.airflow import deadline

        deadline.attach(dag)


@hookimpl
@guarded(None)
def task_policy(task: Any) -> None:
    """Add "Trace in Datadog" to the links of an observed task."""
    if model_of(task) is None:
        return
    from batch_observability.airflow.links import TraceLink

    if not any(isinstance(link, TraceLink) for link in task.operator_extra_links):
        task.operator_extra_links = (*task.operator_extra_links, TraceLink())
