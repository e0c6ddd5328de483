"""A clean environment, and a state folder for each test."""

from __future__ import annotations

import os

import pytest

from tests.live import DatadogAgent, Processes

FOREIGN = ("DD_", "DATADOG_", "OTEL_", "BATCHOBS_", "AIRFLOW", "TRACE", "COVERAGE_")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith((*FOREIGN, "PYTHON"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("BATCHOBS_EXPORT", "spool")


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
