"""
The operator mixin: an operator that is a batch model.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator

from batch_observability.model import BatchModel
from batch_observability.objective import ModelError
from batch_observability.run import Run, current_run


class BatchModelMixin(BaseOperator):  # type: ignore[misc]  # Airflow's class has no types here
    """
    Makes an operator a batch model, by a class attribute or an argument `model`.

        class Score(BatchModelMixin, BaseOperator):
            model = BatchModel(name="churn", owner="team-risk")

            def execute(self, context):
                with self.batch.stage("load"):
                    ...

    `default_args`, `partial().expand()` and deferrable operators work as with any operator. It derives from
    `BaseOperator` because Airflow wraps `__init__` of operators only.

    Raises:
        ModelError: when the task is made without a model.
    """

    model: BatchModel | None = None

    def __init__(self, *, model: BatchModel | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if model is not None:
            self.model = model
        if not isinstance(self.model, BatchModel):
            raise ModelError(
                f"task {self.task_id!r} has model {self.model!r}: write model = BatchModel(name=..., owner=...) in "
                f"class {type(self).__name__}, or pass it as model="
            )

    @property
    def batch(self) -> Run:
        """The current run."""
        return current_run()
