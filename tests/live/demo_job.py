"""
The cron job of the demo: the same model, the flights of one day, and no Airflow; by OpenTelemetry.

It is started as a crontab would start it, by `batchobs run`, with the state folder of the Airflow beside it: both are
in one ledger.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.live.agent import REPOSITORY, DatadogAgent
from tests.live.evidence import Job

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from tests.live.processes import Processes

BATCHOBS = Path(sys.executable).with_name("batchobs")
MODEL = "flight-delay-nightly"
OPTIONS = ("--model", MODEL, "--owner", "team-flights", "--schedule", "10 3 * * *", "--sla-finish-within", "5m")
STAGES = frozenset({MODEL, "load", "score", "publish"})


def run_job(processes: Processes, agent: DatadogAgent, shared: Mapping[str, str], day: date) -> Job:
    """
    Scores the flights of a day; returns what ran.

    Raises:
        LiveError: if it fails; with the end of what it wrote.
    """
    environment = {
        **shared,
        # An Agent that a developer has on this host is not the demo's.
        "BATCHOBS_EXPORT": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": agent.otlp_url,
        "PYTHONPATH": str(REPOSITORY / "dags"),
    }
    command = [str(BATCHOBS), "run", *OPTIONS, "--", sys.executable, "-m", "flight_delay.score_day", str(day)]
    began = time.monotonic()
    process = processes.start("cron-job", command, environment)
    process.wait(300)
    return Job(MODEL, str(day), time.monotonic() - began, STAGES)


def promises(processes: Processes, shared: Mapping[str, str]) -> list[str]:
    """Returns the lines of `batchobs sla`: all models of the ledger, whatever ran them."""
    process = processes.start("sla", [str(BATCHOBS), "sla"], shared)
    process.wait(60)
    return process.log.read_text(encoding="utf-8", errors="replace").splitlines()
