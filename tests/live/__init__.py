"""
Real servers on loopback: Airflow, Datadog's test agent and a DogStatsD listener.

Shared by the demo, the end-to-end tests and the benchmarks, so that all three look at the same thing. Every
server belongs to a `Processes` block, with its temporary folder and free ports of 127.0.0.1, and is gone when
that block ends:

    with (
        Processes() as processes,
        DogStatsDListener() as dogstatsd,
        DatadogAgent(processes) as agent,
        Airflow(processes, dags, environment={"DD_TRACE_AGENT_URL": agent.apm_url, ...}) as airflow,
    ):
        run_id = airflow.trigger("my_dag", conf={"day": "2013-02-08"})
        assert airflow.wait("my_dag", run_id) == "success"
"""

from __future__ import annotations

from tests.live.agent import DatadogAgent
from tests.live.airflow import Airflow
from tests.live.dogstatsd import DogStatsDListener, Event, Metric
from tests.live.processes import LiveError, Processes, free_ports, wait_until

__all__ = [
    "Airflow",
    "DatadogAgent",
    "DogStatsDListener",
    "Event",
    "LiveError",
    "Metric",
    "Processes",
    "free_ports",
    "wait_until",
]
