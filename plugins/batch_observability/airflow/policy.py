"""
The cluster policy: gives observed tasks their link to the trace, whichever way their model is declared.

Called at every parse, for every task: it is quick and harms nothing.
"""

from __future__ import annotations

from typing import Any

import pluggy

from batch_observability.airflow.declared import model_of
from batch_observability.guard import guarded

hookimpl = pluggy.HookimplMarker("airflow.policy")


@hookimpl
@guarded(None)
def task_policy(task: Any) -> None:
    """Add "Trace in Datadog" to the links of an observed task."""
    if model_of(task) is None:
        return
    from batch_observability.airflow.links import TraceLink

    if not any(isinstance(link, TraceLink) for link in task.operator_extra_links):
        task.operator_extra_links = (*task.operator_extra_links, TraceLink())
