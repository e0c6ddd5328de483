"""
Batch models made observable: traces, metrics and correlated logs for Airflow tasks and cron jobs.

Importing this package costs next to nothing: it needs the standard library only. What needs Airflow is imported
when it is first asked for.
"""

from batch_observability._version import __version__

# `batchobs run` is in the way of every job: `typing` takes as long to load as half of Python.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from batch_observability.airflow.mixin import BatchModelMixin
    from batch_observability.cron.observe import observe
    from batch_observability.declare import batch_model
    from batch_observability.model import SLA, BatchModel
    from batch_observability.objective import FinishBy, ModelError
    from batch_observability.run import Run, Stage, current_run

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
    "observe",
]


# Where each name is: `batchobs run` is in the way of every job, and needs few of them.
_ROOMS = {
    "BatchModelMixin": ".airflow.mixin",
    "batch_model": ".declare",
    "SLA": ".model",
    "BatchModel": ".model",
    "FinishBy": ".objective",
    "ModelError": ".objective",
    "Run": ".run",
    "Stage": ".run",
    "current_run": ".run",
    "observe": ".cron.observe",
}


def __getattr__(name: str) -> "Any":
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_ROOMS[name], __name__), name)
    # For mocks and the next look-up.
    globals()[name] = value
    return value
