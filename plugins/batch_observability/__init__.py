"""
Batch models made observable: traces, metrics and correlated logs for Airflow tasks and cron jobs.

Importing this package costs next to nothing: it needs the standard library only. What needs Airflow is imported
when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from batch_observability._version import __version__
from batch_observability.declare import batch_model
from batch_observability.model import SLA, BatchModel
from batch_observability.objective import FinishBy, ModelError
from batch_observability.run import Run, Stage, current_run

if TYPE_CHECKING:
    from batch_observability.airflow.mixin import BatchModelMixin

__all__ = [
    "SLA",
    "BatchModel",
    "BatchModelMixin",
    "FinishBy",
    "ModelError",
    "Run",
    "Stage",
    "__version__",
    "batch_model",
    "current_run",
]


def __getattr__(name: str) -> Any:
    if name == "BatchModelMixin":
        from batch_observability.airflow.mixin import BatchModelMixin

        return BatchModelMixin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
