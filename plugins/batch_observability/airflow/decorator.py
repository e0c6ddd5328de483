"""
`@task.batch_model(model=...)`: a Python task that is a batch model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow.providers.standard.decorators.python import _PythonDecoratedOperator
from airflow.sdk.bases.decorator import task_decorator_factory

from batch_observability.airflow.mixin import BatchModelMixin
from batch_observability.model import BatchModel


class BatchModelDecoratedOperator(BatchModelMixin, _PythonDecoratedOperator):  # type: ignore[misc]  # untyped base
    """What `@task.batch_model` makes."""

    custom_operator_name = "@task.batch_model"


def batch_model_task(
    python_callable: Callable[..., Any] | BatchModel | None = None,
    multiple_outputs: bool | None = None,
    **kwargs: Any,
) -> Any:
    """
    Turn a function into a task that is a batch model.

    Args:
        python_callable: the function; Airflow gives it. A model here is the model.
        multiple_outputs: as for `@task`.
        kwargs: `model`, and arguments of the operator.

    Raises:
        ModelError: when the task is made without a model.
    """
    if isinstance(python_callable, BatchModel):
        kwargs["model"], python_callable = python_callable, None
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=BatchModelDecoratedOperator,
        **kwargs,
    )
