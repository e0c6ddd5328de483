"""What Airflow hands to hooks, without an Airflow that runs."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from uuid import UUID

from airflow.sdk import TaskInstanceState
from airflow.sdk.api.datamodels._generated import DagRun, TIRunContext
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

TRACE_ID = 0x53F5062D4B5F393DAD7C35B90EA8E865
TRACEPARENT = f"00-{TRACE_ID:032x}-e653e4f7e89aec43-00"
RUNNING = TaskInstanceState.RUNNING
_ids = itertools.count(1)


def server(**values):
    """What the API server tells a task when it starts."""
    dag_run = {
        "run_type": "manual",
        "run_after": datetime.now(UTC),
        "clear_number": 0,
        "conf": None,
        "team_name": None,
        "consumed_asset_events": [],
    }
    dag_run = DagRun.model_construct(**dag_run | values.pop("dag_run", {}))
    return TIRunContext.model_construct(dag_run=dag_run, **values)


def task_instance(task, **values):
    """A task instance in the process that runs it; `_ti_context_from_server` is what `server` makes."""
    told = values.pop("told", None)
    known = {
        "id": UUID(int=next(_ids)),
        "dag_id": "faked",
        "task_id": task.task_id,
        "run_id": "manual__1",
        "try_number": 1,
        "map_index": -1,
        "hostname": "here",
        "context_carrier": {"traceparent": TRACEPARENT},
        "task": task,
        "state": TaskInstanceState.RUNNING,
        "start_date": None,
        **values,
    }
    instance = RuntimeTaskInstance.model_construct(**known)
    instance._ti_context_from_server = told or server()
    return instance


class TaskInstance:
    """A row of the database, as the scheduler and the API server have it: to look at more of it is a mistake."""

    def __init__(self, state="failed"):
        self.id = UUID(int=next(_ids))
        self.state = state

    def __getattribute__(self, name):
        if name.startswith("__") or name in {"id", "state"}:
            return super().__getattribute__(name)
        raise AssertionError(f"a hook looked at {name} of a row")
