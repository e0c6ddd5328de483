"""The servers of one Airflow under test, and the runs that were started on it."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.live.agent import DatadogAgent
from tests.live.airflow import Airflow
from tests.live.dogstatsd import DogStatsDListener
from tests.live.evidence import RUN, Attempt, attempts
from tests.live.processes import Processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DAGS = Path(__file__).with_name("dags")
# Two cores may be busy with something else.
ENDED_WITHIN_S = 180
ARRIVED_WITHIN_S = 30


@dataclass(frozen=True)
class Stand:
    """An Airflow, the agent and the DogStatsD listener that it sends to."""

    airflow: Airflow
    agent: DatadogAgent
    dogstatsd: DogStatsDListener
    processes: Processes

    def run(self, *dag_ids: str) -> dict[str, str]:
        """Runs DAGs side by side to their end; returns their run ids."""
        for dag_id in dag_ids:
            self.airflow.wait_for_dag(dag_id)
        runs = {dag_id: self.airflow.trigger(dag_id) for dag_id in dag_ids}
        for dag_id, run_id in runs.items():
            self.airflow.wait(dag_id, run_id, ENDED_WITHIN_S)
        return runs

    def tried(self, *dag_ids: str) -> list[Attempt]:
        """Returns every try of these DAGs that a process worked on, from Airflow's own records."""
        return [attempt for attempt in attempts(self.airflow, dag_ids) if attempt.key.try_number > 0]

    def log(self, component: str) -> str:
        """Returns what a component has written."""
        return self.airflow.component(component).log.read_text(errors="replace")

    def observer_log(self) -> str:
        """Returns what sidecars and helper had to say; they are silent when all is well."""
        path = self.airflow.home / "batch_observability" / "logs" / "observer.log"
        return path.read_text() if path.exists() else ""


@contextlib.contextmanager
def stand(dags: Path = DAGS, *, tracing: bool = False, plugins: Path | None = None, **extra: str) -> Iterator[Stand]:
    """Starts everything; with `tracing` Airflow sends spans of its own to the agent's OTLP port, and so do we."""
    with Processes() as processes, DogStatsDListener() as dogstatsd, DatadogAgent(processes) as agent:
        environment = {
            # Only what a test triggers runs.
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
            "DD_TRACE_AGENT_URL": agent.apm_url,
            "DD_DOGSTATSD_URL": dogstatsd.url,
            "DD_ENV": "test",
            "DD_SITE": "datadoghq.eu",
            **extra,
        }
        if tracing:
            environment |= {
                "AIRFLOW__TRACES__OTEL_ON": "True",
                "OTEL_EXPORTER_OTLP_ENDPOINT": agent.otlp_url,
                "OTEL_TRACES_EXPORTER": "otlp_proto_http",
            }
        with Airflow(processes, dags, environment=environment, plugins=plugins) as airflow:
            yield Stand(airflow, agent, dogstatsd, processes)


@contextlib.contextmanager
def arrivals(agent: DatadogAgent) -> Iterator[dict[str, float]]:
    """Watches the agent: run id to the Unix time when its run span was first seen there, at most 0.2 s late."""
    seen: dict[str, float] = {}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            for span in agent.spans(RUN):
                seen.setdefault(span["meta"]["batch_model.run_id"], time.time())

    thread = threading.Thread(target=watch, name="arrivals", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def settled(count: Callable[[], int], enough: int, what: str) -> None:
    """Waits until `count()` has reached `enough`, and then stands still for two seconds: more would be too many."""
    wait_until(lambda: count() >= enough, f"{what} reach {enough}", ARRIVED_WITHIN_S, count)
    seen: list[int] = []

    def still() -> bool:
        seen.append(count())
        return len(seen) > 4 and len(set(seen[-5:])) == 1

    wait_until(still, f"{what} stand still", ARRIVED_WITHIN_S, lambda: seen[-5:], every=0.5)
