"""A clean environment, and a state folder for each test."""

from __future__ import annotations

import os
from pathlib import Path

import coverage
import pytest

from tests.live import DatadogAgent, Processes

ROOT = Path(__file__).parents[2]
FOREIGN = ("DD_", "DATADOG_", "OTEL_", "BATCHOBS_", "AIRFLOW", "TRACE", "COVERAGE_")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith((*FOREIGN, "PYTHON"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("BATCHOBS_EXPORT", "spool")
    if coverage.Coverage.current() is not None:
        # What is tested here runs in processes of its own; coverage's .pth file finds these.
        monkeypatch.setenv("COVERAGE_PROCESS_START", str(Path(__file__).with_name("coverage.toml")))
        monkeypatch.setenv("COVERAGE_FILE", str(ROOT / ".coverage"))


@pytest.fixture(scope="session")
def agent():
    """Return Datadog's test agent, which takes OTLP."""
    with Processes() as processes, DatadogAgent(processes) as agent:
        yield agent


@pytest.fixture
def otlp(agent, monkeypatch):
    """Let all signals go to the agent, by OTLP; return it."""
    monkeypatch.setenv("BATCHOBS_EXPORT", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", agent.otlp_url)
    agent.clear()
    return agent
