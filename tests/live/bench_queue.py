"""
Queues the task instances of a benchmark, as a scheduler would, but all at once and before anything is timed.

A script, run in the environment of the benchmark's Airflow by `tests.live.bench_stand`: reads a list of
[DAG id, run id] from one JSON file, and writes workloads, as executors get them, by run id to another.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    Json = dict[str, Any]


def main(plan: Path, queued: Path) -> None:
    """Makes the DAGs known, then a run with its queued task for every line of the plan."""
    from airflow.executors.base_executor import BaseExecutor
    from airflow.utils.session import create_session

    with create_session() as session:
        _serialize_dags(session)
    # One for all: making the signing key anew for each token would take longer than all the rest.
    executor = BaseExecutor(parallelism=1)
    with create_session() as session:
        wanted = json.loads(plan.read_text())
        workloads = {run_id: _queue(dag_id, run_id, executor, session) for dag_id, run_id in wanted}
    queued.write_text(json.dumps(workloads))


def _serialize_dags(session: Session) -> None:
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

    manager = DagBundlesManager()
    manager.sync_bundles_to_db(session=session)
    session.commit()
    for bundle in manager.get_all_dag_bundles():
        bundle.initialize()
        dags = BundleDagBag(bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
        if dags.import_errors:
            raise SystemExit(f"a DAG of the benchmark cannot be imported: {dags.import_errors}")
        sync_bag_to_db(dags, bundle.name, bundle_version=None, session=session)


def _queue(dag_id: str, run_id: str, executor: Any, session: Session) -> Json:
    from airflow._shared.timezones import timezone
    from airflow.executors.workloads import ExecuteTask
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.state import DagRunState, TaskInstanceState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    serialized = SerializedDagModel.get(dag_id, session=session)
    dag_run = serialized.dag.create_dagrun(
        run_id=run_id,
        run_after=timezone.utcnow(),
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state=DagRunState.RUNNING,
        start_date=timezone.utcnow(),
        session=session,
    )
    (instance,) = dag_run.get_task_instances(session=session)
    instance.state = TaskInstanceState.QUEUED
    instance.queued_dttm = timezone.utcnow()
    session.flush()
    workload: Json = ExecuteTask.make(instance, generator=executor.jwt_generator).model_dump(mode="json")
    return workload


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
