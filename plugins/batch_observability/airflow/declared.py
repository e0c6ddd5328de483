"""
Which batch model a task is: by the mixin, the task decorator, or a marked callable.
"""

from __future__ import annotations

from typing import Any

from batch_observability.declare import declared_model
from batch_observability.model import BatchModel


def model_of(task: Any) -> BatchModel | None:
    """Return the model of a task, also of a mapped one at parse time; None if it is not a batch model."""
    kwargs = getattr(task, "partial_kwargs", None)
    if kwargs is None:
        model, function = getattr(task, "model", None), getattr(task, "python_callable", None)
    else:
        # A mapped operator: what every instance of it will get.
        model = kwargs.get("model", getattr(task.operator_class, "model", None))
        function = kwargs.get("python_callable")
    return model if isinstance(model, BatchModel) else declared_model(function)
