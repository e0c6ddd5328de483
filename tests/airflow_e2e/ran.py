"""What the DAGs of this folder do, and what of it arrived at the Agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_observability import schema
from tests.live import rest
from tests.live.evidence import RUN

if TYPE_CHECKING:
    from tests.airflow_e2e.stand import Stand

DECLARED = {
    ("mixin", -1, 1): "success",
    ("mapped", 0, 1): "success",
    ("mapped", 1, 1): "success",
    ("mapped", 2, 1): "success",
    ("retried", -1, 1): "retrying",
    ("retried", -1, 2): "success",
    ("deferred", -1, 1): "success",
    ("decorated", 0, 1): "success",
    ("decorated", 1, 1): "success",
    ("wrapped", -1, 1): "success",
    ("skipped", -1, 1): "skipped",
}
DEATHS = {"sigkill": "SIGKILL", "segfault": "SIGSEGV", "exit_zero": "ProcessExit", "exit_three": "ProcessExit"}


@dataclass(frozen=True)
class Live:
    """The stand after both DAGs have ended and all has arrived."""

    stand: Stand
    ids: dict[str, str]
    arrived: dict[str, float]
    traces: list

    @property
    def spans(self):
        return [span for trace in self.traces for span in trace]

    def run_span(self, task_id, map_index=-1, try_number=1):
        (span,) = (s for s in self.spans if s["name"] == RUN and place(s) == (task_id, map_index, try_number))
        return span

    def lines(self, task_id, map_index=-1, try_number=1):
        dag_id = "killed" if task_id in DEATHS else "declared"
        return self.stand.airflow.log_lines(dag_id, self.ids[dag_id], task_id, map_index, try_number)

    def links(self, task_id, map_index=-1):
        path = f"dags/declared/dagRuns/{rest.quoted(self.ids['declared'])}/taskInstances/{task_id}/links"
        return self.stand.airflow.api(f"{path}?map_index={map_index}")["extra_links"]


def place(span):
    numbers = span["metrics"]
    return (
        span["meta"]["airflow.task_id"],
        int(numbers["airflow.task_instance.map_index"]),
        int(numbers["airflow.task_instance.try_number"]),
    )


def run_id(span):
    return span["meta"][schema.RUN_ID]
