"""
What names one try of one task, and the run that it is: the same wherever it is told from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batch_observability import schema
from batch_observability.ids import derive_span_id
from batch_observability.model import BatchModel

SOURCE = "airflow"


@dataclass(frozen=True)
class Attempt:
    """
    One try of one task.

    Attributes:
        id: Airflow's task instance id, new on every try.
        dag_id, run_id, task_id: of the task in its DAG run.
        map_index: -1 if the task is not mapped.
        try_number: from 1.
    """

    id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int

    def of_run(self, trace_id: int) -> dict[str, Any]:
        """Return the fields of a `RunContext` that follow from it, in a trace."""
        return {
            "run_id": self.id,
            "source": SOURCE,
            "resource": f"{self.dag_id}.{self.task_id}",
            "tags": {schema.TAG_DAG_ID: self.dag_id, schema.TAG_TASK_ID: self.task_id},
            "trace_id": trace_id,
            "span_id": self._span_id(trace_id, self.try_number),
            "attributes": {
                schema.DAG_ID: self.dag_id,
                schema.TASK_ID: self.task_id,
                schema.DAG_RUN_ID: self.run_id,
                schema.TRY_NUMBER: self.try_number,
                schema.MAP_INDEX: self.map_index,
            },
        }

    def before(self, trace_id: int) -> int:
        """Return the id of the run span of the try before."""
        return self._span_id(trace_id, self.try_number - 1)

    def _span_id(self, trace_id: int, try_number: int) -> int:
        place = (self.dag_id, self.run_id, self.task_id, self.map_index)
        return derive_span_id(schema.RUN, trace_id, *place, try_number)


def as_text(model: BatchModel) -> dict[str, Any]:
    """Return a model as runs carry it."""
    return {
        "name": model.name,
        "version": model.version,
        "service": model.service,
        "owner": model.owner,
        "tier": str(model.tier),
        "runbook": model.runbook,
        "objectives": model.objectives(),
        "terms": model.sla.terms() if model.sla else {},
    }
