"""
The Airflow plugin, found by its entry point, or by `batch_observability_plugin.py` in a plugins folder.
"""

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from batch_observability.airflow import compat, listener, policy
from batch_observability.guard import guarded


class BatchObservabilityPlugin(AirflowPlugin):  # type: ignore[misc]  # Airflow's class has no types here
    """Observes tasks that are declared as batch models, and the DAG runs that they are in."""

    name = "batch_observability"
    listeners = [listener]  # noqa: RUF012  (as Airflow's base class has it)

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Make sure of the policy; a policy that came by its entry point is known already."""
        del args, kwargs
        guarded(None)(compat.register_policy)(policy)
