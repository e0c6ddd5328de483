"""A job that logs a thousand secrets: none is in a file, the ledger, the spool, its output, or on the wire."""

from __future__ import annotations

import gzip
import pickle
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.cron.jobs import finished, run, state
from tests.live import wait_until
from tests.logs.test_masking import planted

JOB = """
import logging, pickle, sys, warnings
from batch_observability import current_run
from batch_observability.logs import bind, configure_logging, get_logger

configure_logging()
run, log, plain = current_run(), get_logger("job"), logging.getLogger("plain")
with open(sys.argv[1], "rb") as file:
    planted = pickle.load(file)
for number, (_, fields) in enumerate(planted):
    event = fields.pop("event")
    if number % 5 == 0:
        plain.warning("%s", event, extra={"detail": fields})
    elif number % 5 == 1:
        try:
            raise ConnectionError(event)
        except ConnectionError:
            log.exception("failed", **fields)
    elif number % 5 == 2:
        with bind(**{f"bound.{name}": value for name, value in fields.items() if name == "detail"}):
            log.error(event, **fields)
    else:
        log.info(event, **fields)
    if number % 50 == 3:
        run.event(event)
        warnings.warn(event)
    if number % 50 == 4:
        with run.stage(event):
            pass
raise ConnectionError(planted[0][1].get("detail") or event)
"""


@pytest.fixture
def wire(monkeypatch):
    """Take what is sent by OTLP, and return it as it came, uncompressed."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield received
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("target", ["otlp", "spool"])
def test_no_secret_of_a_job_is_anywhere(target, wire, tmp_path, monkeypatch):
    monkeypatch.setenv("BATCHOBS_EXPORT", target)
    monkeypatch.setenv("BATCHOBS_SHIP_LOGS", "true")
    everything = list(planted())
    values = [value for found, _ in everything for value in found]
    assert len(values) >= 500
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "planted.pickle").write_bytes(pickle.dumps(everything))
    ran = run("--model", "churn", "--", sys.executable, str(tmp_path / "job.py"), str(tmp_path / "planted.pickle"))
    assert ran.returncode == 1, ran.stderr[-2000:]
    (told,) = finished()
    assert told["error.kind"].endswith("ConnectionError")
    wait_until(lambda: not list((state() / "runs").glob("*.json")), "its observer has left", 30)
    # What Python itself prints of the error that ends the job is the job's own, and its caller's.
    said, _, _ = ran.stderr.rpartition(b"Traceback (most recent call last):")
    files = {str(path): path.read_bytes() for path in state().rglob("*") if path.is_file()}
    places = {"output": ran.stdout + said, **files, **{f"request {n}": body for n, body in enumerate(wire)}}
    assert sum(place.count(b"***") for place in places.values()) > len(values)
    assert bool(wire) is (target == "otlp")
    kept = {name.rpartition("/")[2] for name, content in files.items() if content}
    assert {"batch_models.jsonl", "churn.jsonl", "ledger.db"} <= kept
    leaks = [f"{value} in {name}" for name, content in places.items() for value in values if value.encode() in content]
    assert not leaks, "\n".join(leaks[:20])
