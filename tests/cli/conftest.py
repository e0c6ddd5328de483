"""The command as a user runs it: a process of its own, with an environment that says little else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.agent import DatadogAgent
from tests.live.dogstatsd import DogStatsDListener
from tests.live.processes import Processes

OURS = ("DD_", "OTEL_", "BATCHOBS_", "AIRFLOW")


@pytest.fixture(scope="module")
def agent():
    with Processes() as processes, DatadogAgent(processes) as started:
        yield started


@pytest.fixture
def dogstatsd():
    with DogStatsDListener() as listener:
        yield listener


@pytest.fixture
def batchobs(tmp_path):
    """Return a function that runs `batchobs` with these arguments and variables."""
    command = Path(sys.executable).with_name("batchobs")

    def run(*arguments, **variables):
        environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        environ |= {"BATCHOBS_STATE_DIR": str(tmp_path / "state"), "HOME": str(tmp_path), **variables}
        return subprocess.run(
            [command, *arguments], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False
        )

    return run
