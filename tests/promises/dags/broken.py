"""A batch model whose file is broken before its next run is due."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from batch_observability import SLA, BatchModel, batch_model

with DAG(
    "broken",
    schedule=f"{os.environ.get('PROMISES_DUE', '0 0')} * * *",
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
):
    PythonOperator(
        task_id="score",
        python_callable=batch_model(print, BatchModel("broken", owner="team-test", sla=SLA(start_within="10s"))),
    )
