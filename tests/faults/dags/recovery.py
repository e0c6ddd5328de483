"""Many runs that all end well, while what they tell is told to backends that come and go."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import DAG, BaseOperator

from batch_observability import BatchModel, BatchModelMixin

RUNS = 60


class Score(BatchModelMixin, BaseOperator):
    """One of many."""

    model = BatchModel("recovering", owner="team-faults", service="recovering")

    def __init__(self, part: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.part = part

    def execute(self, context: object) -> None:
        with self.batch.stage("score"):
            self.batch.rows(read=self.part)


with DAG("recovery", start_date=datetime(2024, 1, 1), schedule=None):
    Score.partial(task_id="mapped").expand(part=list(range(RUNS)))
