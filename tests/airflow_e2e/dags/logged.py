"""A task that logs a hundred thousand lines, in every way and from everywhere."""

from __future__ import annotations

from datetime import datetime

import log_lines
from airflow.sdk import DAG, BaseOperator

from batch_observability import BatchModel, BatchModelMixin


class Loud(BatchModelMixin, BaseOperator):
    """Its children are in the stage that is open when they are started."""

    model = BatchModel("loud-score", version="3", service="loud", owner="team-risk")

    def execute(self, context):
        with self.batch.stage("all"):
            codes = log_lines.write_everything(self.log)
        assert codes == [0] * len(codes)


with DAG("logged", start_date=datetime(2024, 1, 1), schedule=None):
    Loud(task_id="loud")
