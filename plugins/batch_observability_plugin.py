"""
For `plugins/` as Airflow's plugins folder, without pip: the plugin, and `@task.batch_model`.

Airflow executes this file twice in every process; what it imports is imported once. Where the distribution is
installed too, Airflow finds the plugin by its entry point, and a second one by the same name would be refused with a
warning: then this file holds nothing.
"""

from importlib.metadata import PackageNotFoundError, distribution

try:
    distribution("airflow-batch-observability")
except PackageNotFoundError:
    from batch_observability.airflow.compat import register_task_decorator
    from batch_observability.airflow.decorator import batch_model_task
    from batch_observability.airflow.plugin import BatchObservabilityPlugin  # noqa: F401  (Airflow looks for it here)
    from batch_observability.guard import guarded

    guarded(None)(register_task_decorator)("batch_model", batch_model_task)
