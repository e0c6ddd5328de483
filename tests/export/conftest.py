"""The real servers, a clean environment, and a process of its own to send from."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.export.sender import Order
from tests.live import DatadogAgent, DogStatsDListener, Processes

REPOSITORY = Path(__file__).parents[2]
FOREIGN = ("DD_", "DATADOG_", "OTEL_", "BATCHOBS_")


@pytest.fixture(autouse=True)
def _clean_environment(tmp_path):
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    os.environ["BATCHOBS_STATE_DIR"] = str(tmp_path / "state")
    yield
    # A target that is made in this process sets what ddtrace is to read.
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def processes():
    with Processes() as processes:
        yield processes


@pytest.fixture(scope="session")
def agent(processes):
    """Datadog's test agent; what came in earlier tests is still there: look for your own trace or service."""
    with DatadogAgent(processes) as agent:
        yield agent


@pytest.fixture(scope="session")
def dogstatsd():
    with DogStatsDListener() as listener:
        yield listener


@pytest.fixture(scope="session")
def dispatch():
    """
    Carry out an Order in a process of its own, with these environment variables; return what it printed.

    An order by which the process dies returns nothing.
    """

    def run(order: Order, **variables: str) -> dict:
        environment = {key: value for key, value in os.environ.items() if not key.startswith((*FOREIGN, "PYTEST"))}
        done = subprocess.run(
            [sys.executable, "-m", "tests.export.sender"],
            input=pickle.dumps(order),
            cwd=REPOSITORY,
            env=environment | _coverage() | variables,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == (-signal.SIGKILL if order.dies else 0), done.stderr.decode()
        return {} if order.dies else json.loads(done.stdout) | {"stderr": done.stderr.decode()}

    return run


def _coverage() -> dict[str, str]:
    with contextlib.suppress(ImportError):
        import coverage

        if running := coverage.Coverage.current():
            return {
                "COVERAGE_PROCESS_START": str(REPOSITORY / "pyproject.toml"),
                "COVERAGE_FILE": str(REPOSITORY / running.get_option("run:data_file")),
            }
    return {}


@pytest.fixture(scope="session")
def refused():
    """Return a port of 127.0.0.1 that nobody listens on, neither for TCP nor for UDP."""
    # Bound and not listening: nobody else can take it either.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture(scope="session")
def silent():
    """Return a port of 127.0.0.1 that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="session")
def answering():
    """Return a function that starts an HTTP server with a status for each path, 200 for others; returns its port."""
    with contextlib.ExitStack() as stack:

        def start(**statuses: int) -> int:
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    self.rfile.read(int(self.headers.get("Content-Length", 0)))
                    name = self.path.strip("/").split("/")[-1]
                    self.send_response(statuses.get(name, 200))
                    self.send_header("Content-Length", "0")
                    self.end_headers()

                do_POST = do_PUT = do_GET  # noqa: N815  (names of http.server)

                def log_message(self, *args):
                    """Say nothing."""

            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server.server_address[1]

        yield start
