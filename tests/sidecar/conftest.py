"""The real servers, a clean environment, and observed processes that are not pytest."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from batch_observability.ledger.store import Ledger
from tests.live import DatadogAgent, DogStatsDListener, Processes, wait_until

REPOSITORY = Path(__file__).parents[2]
FOREIGN = ("DD_", "DATADOG_", "OTEL_", "BATCHOBS_")
LOW = (1 << 64) - 1


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture(autouse=True)
def _own_logger():
    """Take away the handlers that an observer in this process adds to our logger."""
    logger = logging.getLogger("batch_observability")
    before, propagate = list(logger.handlers), logger.propagate
    yield
    for handler in [handler for handler in logger.handlers if handler not in before]:
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = propagate


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def pair():
    """Return both ends of a socket pair: that of the observed process, and that of its observer."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture(scope="session")
def agent():
    with Processes() as processes, DatadogAgent(processes) as agent:
        yield agent


@pytest.fixture(scope="session")
def dogstatsd():
    with DogStatsDListener() as listener:
        yield listener


@pytest.fixture
def silent():
    """Return a port of 127.0.0.1 that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def family(tmp_path):
    """Every process that a test starts and all their descendants, sidecars too; none outlives the test."""
    with Processes(tmp_path / "family") as processes:
        yield processes


@dataclass
class Observed:
    """A process that is observed: its pid, what it is asked, and what it told before it ended."""

    popen: subprocess.Popen
    family: Processes
    told: Path
    service: str
    trace_id: int
    ended_ns: int = 0

    @property
    def pid(self) -> int:
        return self.popen.pid

    def wait(self) -> int:
        """Wait for its end, at once as Airflow's supervisor does; return its status as subprocess has it."""
        # stdin stays open: some scenarios leave a child behind that ends with it.
        self.popen.wait(timeout=60)
        self.ended_ns = time.time_ns()
        return self.popen.returncode

    def tell(self) -> None:
        """Let it go on."""
        self.popen.stdin.close()

    def step(self) -> None:
        """Let it go on by one line."""
        self.popen.stdin.write(b"\n")
        self.popen.stdin.flush()

    def said(self) -> dict:
        """Return what it has told about itself so far."""
        lines = self.told.read_text("utf-8").splitlines() if self.told.exists() else []
        return {key: value for line in lines for key, value in json.loads(line).items()}

    def sidecars(self) -> list[psutil.Process]:
        """Return the living processes that observe it."""
        return [process for process in self.family.survivors() if "sidecar" in _command(process)]

    def sidecar(self) -> psutil.Process:
        """Return its sidecar as soon as that is set up."""

        def set_up():
            ignored = int(1 << signal.SIGTERM - 1)
            return [process for process in self.sidecars() if _ignored(process.pid) & ignored]

        (sidecar,) = wait_until(set_up, "the sidecar is set up", 20, self.family.survivors, every=0.02)
        return sidecar

    def wait_unobserved(self) -> None:
        """Wait until the sidecar has ended by itself; also one that the shell is only about to start."""

        def observers():
            return [process for process in self.family.survivors() if "sidecar" in " ".join(_words(process))]

        # A process that becomes another program has no words for a moment.
        def ended():
            return not observers() and not time.sleep(0.1) and not observers()

        wait_until(ended, "the sidecar ends", 30, observers, every=0.05)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _command(process: psutil.Process) -> list[str]:
    command = _words(process)
    # The shell that starts it has the same words.
    return command if command and "python" in command[0] else []


def _ignored(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return 0
    return int(next(line for line in status.splitlines() if line.startswith("SigIgn:")).split()[1], 16)


@pytest.fixture
def child():
    """Return a process that lives until its stdin ends, and a pidfd of it."""
    popen = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    pidfd = os.pidfd_open(popen.pid)
    yield popen, pidfd
    os.close(pidfd)
    popen.kill()
    popen.communicate()


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory):
    """Return the file of a ledger without runs: to make one takes a process longer than to use it."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    Ledger(f"sqlite:///{path}", 10.0).migrate()
    return path


@pytest.fixture
def observe(family, tmp_path, agent, dogstatsd, empty_ledger):
    """Start a scenario of `tests.sidecar.observed`; its signals go to the agent unless the variables say otherwise."""
    started = []
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    shutil.copy(empty_ledger, state / "ledger.db")

    def start(scenario: str, options: dict | None = None, **variables: str) -> Observed:
        service, trace_id = f"service-{secrets.token_hex(6)}", secrets.randbits(128) | 1 << 127
        told = tmp_path / f"told-{len(started)}.jsonl"
        options = {"service": service, "trace_id": trace_id, "told": str(told), **(options or {})}
        environment = family.environment(
            {
                "BATCHOBS_STATE_DIR": str(tmp_path / "state"),
                "DD_TRACE_AGENT_URL": agent.apm_url,
                "DD_DOGSTATSD_URL": dogstatsd.url,
                **variables,
            }
        )
        environment.pop("PYTEST_VERSION", None)
        with (tmp_path / f"stderr-{len(started)}.txt").open("wb") as errors:
            popen = subprocess.Popen(
                [sys.executable, "-m", "tests.sidecar.observed", scenario, json.dumps(options)],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        started.append(popen)
        return Observed(popen, family, told, options["service"], options["trace_id"])

    yield start
    for popen in started:
        popen.kill()
        popen.stdin.close()
        popen.wait()


@pytest.fixture
def run_span(agent):
    """Return the only run span of an observed process, when it has arrived and nothing more can."""

    def of(observed: Observed) -> dict:
        def spans():
            return [
                span
                for span in agent.spans("batch_model.run")
                if span["trace_id"] == observed.trace_id & LOW and span["service"] == observed.service
            ]

        wait_until(spans, "the run span is at the agent", 30, agent.spans, every=0.1)
        observed.wait_unobserved()
        (span,) = spans()
        return span

    return of
