"""
The cluster policy: gives observed tasks their link to the trace, whichever way their model is declared, keeps our
listener from standing in the way of DAGs that Airflow would refuse for it, and looks at who answers for models.

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
def dag_policy(dag: Any) -> None:
    """
    Refuse a DAG whose models nobody answers for, where that is asked for; prepare all others.

    Raises:
        AirflowClusterPolicyViolation: naming model, rule and remedy. Nothing else leaves: both steps are guarded.
    """
    if text := _refusal(dag):
        raise compat.refusal(text)
    _dag_policy(dag)


@guarded("")
def _refusal(dag: Any) -> str:
    if not _is_kept():
        return ""
    from batch_observability.airflow import ownership

    return ownership.check(dag, compat.settings())


def _is_kept() -> bool:
    """Whether what is parsed is kept; `airflow dags reserialize` and `airflow dags test` keep DAGs too."""
    return compat.is_dag_processor() or sys.argv[1:2] == ["dags"]


@guarded(None)
def _dag_policy(dag: Any) -> None:
    """
    Write down which tasks are batch models, attach deadlines; withdraw our listener where it stands in the way.

    Airflow makes such a DAG an import error where any listener is registered, for there is nobody to call it when the
    task ends (dag_processing/dagbag.py). The policy is asked just before. Only this process is concerned, which parses:
    the scheduler keeps its listener, and tasks have theirs elsewhere.
    """
    if any(getattr(task, "end_from_trigger", False) for task in dag.tasks):
        compat.withdraw_listener("batch_observability.airflow.listener")
    if not _is_kept():
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
