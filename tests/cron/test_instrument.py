"""`batchobs run --instrument`: spans of what a job calls, in the trace of its run."""

from __future__ import annotations

import os
import sys
import time
import venv
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.cron.jobs import finished, run
from tests.live import free_ports, wait_until

CALL = "import requests, sys, threading\ncall = lambda: requests.get(sys.argv[1])\n"
STAGE = "from batch_observability import current_run\n"


class Echo(BaseHTTPRequestHandler):
    """Answers, and writes down whose child the caller says it is."""

    def do_GET(self):
        self.server.parents.append(self.headers["traceparent"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_args):
        """Say nothing."""


@pytest.fixture
def called():
    """Return a web server on loopback, and what its callers are parts of."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        server.parents = []
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def instrumented(code, server):
    url = f"http://127.0.0.1:{server.server_port}/"
    return run("--instrument", "--model", "churn", "--", sys.executable, "-c", CALL + code, url)


def test_a_call_is_a_span_below_the_run_in_any_thread_or_below_its_stage(otlp, called):
    code = (
        f"{STAGE}call()\nthread = threading.Thread(target=call); thread.start(); thread.join()\n"
        "with current_run().stage('load'): call()"
    )
    ran = instrumented(code, called)
    assert (ran.returncode, ran.stderr) == (0, b"")

    def names():
        return sorted(span["name"] for span in otlp.otlp_spans())

    wait_until(lambda: len(names()) == 5, "all spans are at the agent", 30, names)
    calls = sorted(otlp.otlp_spans("GET"), key=lambda span: span["start_time_unix_nano"])
    (of_run,) = [span for span in otlp.otlp_spans() if not span["parent_span_id"]]
    (stage,) = [span for span in otlp.otlp_spans() if span["name"] != "GET" and span["parent_span_id"]]
    assert {span["trace_id"] for span in otlp.otlp_spans()} == {of_run["trace_id"]}
    assert [span["parent_span_id"] for span in calls] == [of_run["span_id"]] * 2 + [stage["span_id"]]
    assert [parent.split("-")[2] for parent in called.parents] == [span["span_id"] for span in calls]
    assert {span["resource"]["service.name"] for span in calls} == {"churn"}


def test_grandchildren_below_a_shell_are_instrumented_and_the_rest_is_as_it_was(otlp, called, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.theirs = True\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = (
        CALL + "call(); import os; print(theirs, sys.path[1], [n for n in os.environ if n.startswith('OTEL_TRACES')])"
    )
    script = tmp_path / "score.sh"
    script.write_text(f'#!/bin/sh\n{sys.executable} -c "{code}" http://127.0.0.1:{called.server_port}/\ntrue\n')
    script.chmod(0o700)
    ran = run("--instrument", "--", str(script))
    assert ran.stdout.decode().split() == ["True", str(tmp_path), "[]"]
    wait_until(lambda: otlp.otlp_spans("GET"), "the call is at the agent", 30)


def test_a_process_leaves_within_a_bound_when_nobody_takes_its_spans(called, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_ports(1)[0]}")
    began = time.monotonic()
    assert instrumented("call()", called).returncode == 0
    assert time.monotonic() - began < 15


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Return a Python that has nothing installed."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


def test_a_python_without_the_packages_is_refused_with_what_to_install(bare):
    ran = run("--instrument", "--", str(bare), "-c", "print('ran')")
    assert (ran.returncode, ran.stdout) == (2, b"")
    (line,) = ran.stderr.decode().splitlines()
    assert f"{bare} -m pip install opentelemetry-distro" in line


def test_one_that_a_shell_starts_says_so_and_runs(bare):
    ran = run("--instrument", "--model", "churn", "--", "sh", "-c", f"{bare} -c 'print(1)'; exit 0")
    assert (ran.returncode, ran.stdout) == (0, b"1\n")
    (line,) = ran.stderr.decode().splitlines()
    assert "runs uninstrumented" in line
    assert finished()[0]["batch_model.outcome"] == "success"
    assert "PYTHONPATH" not in os.environ
