"""A batch on its way: log file and disk first, then every target within its time, and a report."""

from __future__ import annotations

import json
import stat
import sys
import threading
import time
from dataclasses import replace

import pytest

from batch_observability.config import Settings
from batch_observability.export import deliver
from batch_observability.export.deliver import Delivery
from batch_observability.export.signals import TRACES
from batch_observability.export.target import Choice, ExportError
from tests.export.batches import run_batch
from tests.export.sender import Order, waiting
from tests.live import wait_until


class OutsideWorld:
    """Stands for a backend: takes all, or fails in a way that is given."""

    def __init__(self, name, signals, fault=None):
        self.name = name
        self.signals = frozenset(signals)
        self.taken = []
        self._fault = fault

    def send(self, batch):
        if self._fault:
            self._fault()
        self.taken.append(batch)


@pytest.fixture
def world(monkeypatch):
    """Return a function that puts backends in the place of the real ones."""

    def put(**faults):
        signals = {"datadog": {"traces", "metrics", "events"}, "otlp": {"traces", "metrics", "logs"}}
        backends = {name: OutsideWorld(name, signals[name], fault) for name, fault in faults.items()}
        monkeypatch.setattr(deliver, "make_target", lambda name, _environ: backends[name])
        return backends

    return put


def fail(error):
    def fault():
        raise error

    return fault


def delivery(state, *targets, **settings):
    return Delivery(Settings(state_dir=str(state), **settings), Choice(targets, ()))


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def log_lines(state):
    return [json.loads(line) for line in (state / "logs" / "batch_models.jsonl").read_text("utf-8").splitlines()]


def test_all_is_on_disk_before_it_is_safe_and_only_then_sent(world, tmp_path):
    events = []
    world(datadog=lambda: events.append("sent"))

    def safe():
        events.append("safe")
        assert waiting(tmp_path) == ["datadog.events", "datadog.metrics", "datadog.traces"]
        assert log_lines(tmp_path)

    report = delivery(tmp_path, "datadog").deliver(run_batch(), on_safe=safe)
    assert events == ["safe", "sent"]
    assert report.targets == {"datadog": ""}
    assert waiting(tmp_path) == []


def test_two_real_targets_at_once(agent, dogstatsd, dispatch, tmp_path):
    batch = run_batch()
    out = dispatch(
        Order(("datadog", "otlp"), (batch,), Settings(state_dir=str(tmp_path))),
        DD_TRACE_AGENT_URL=agent.apm_url,
        DD_DOGSTATSD_URL=dogstatsd.url,
        OTEL_EXPORTER_OTLP_ENDPOINT=agent.otlp_url,
    )
    (result,) = out["results"]
    assert result["errors"] == {"datadog": "", "otlp": ""}
    assert result["safe"] == [
        *("datadog.events", "datadog.metrics", "datadog.traces"),
        *("otlp.logs", "otlp.metrics", "otlp.traces"),
    ]
    assert result["left"] == []
    wanted = f"{batch.spans[0].trace_id:032x}"
    wait_until(lambda: [s for s in agent.otlp_spans() if s["trace_id"] == wanted], "OTLP", 5, every=0.05)
    wait_until(lambda: [s for s in agent.spans() if s["trace_id"] == int(wanted[16:], 16)], "APM", 5, every=0.05)


def test_what_one_target_does_not_take_waits_for_that_one_only(world, tmp_path, caplog):
    failure = fail(ExportError({TRACES: "the Agent is away"}))
    backends = world(datadog=failure, otlp=None)
    report = delivery(tmp_path, "datadog", "otlp").deliver(run_batch(name="a-run"))
    assert report.targets == {"datadog": "the Agent is away", "otlp": ""}
    assert waiting(tmp_path) == ["datadog.traces"]
    (taken,) = backends["otlp"].taken
    assert taken.spans
    assert taken.logs
    assert not taken.events
    assert "a-run: the Agent is away" in caplog.text


def test_an_exception_of_a_target_keeps_all_and_is_reported(world, tmp_path):
    world(datadog=fail(RuntimeError("surprise")))
    report = delivery(tmp_path, "datadog").deliver(run_batch())
    assert report.targets == {"datadog": "RuntimeError: surprise"}
    assert waiting(tmp_path) == ["datadog.events", "datadog.metrics", "datadog.traces"]


def test_a_target_that_does_not_answer_has_export_timeout_and_keeps_all(world, tmp_path):
    release = threading.Event()
    world(datadog=release.wait)
    report = delivery(tmp_path, "datadog", export_timeout=0.1).deliver(run_batch())
    assert report.targets == {"datadog": "datadog did not answer within 0.1 s"}
    assert waiting(tmp_path) == ["datadog.events", "datadog.metrics", "datadog.traces"]
    release.set()
    wait_until(lambda: waiting(tmp_path) == [], "the late target has taken it", 5, every=0.01)


def test_two_targets_that_do_not_answer_have_export_timeout_together(world, tmp_path):
    release = threading.Event()
    world(datadog=release.wait, otlp=release.wait)
    began = time.monotonic()
    delivery(tmp_path, "datadog", "otlp", export_timeout=1).deliver(run_batch())
    took = time.monotonic() - began
    release.set()
    assert took < 1.8


def test_the_spool_as_a_target_keeps_every_signal(tmp_path):
    report = delivery(tmp_path, "spool").deliver(run_batch())
    assert report.targets == {"spool": ""}
    assert waiting(tmp_path) == ["spool.events", "spool.logs", "spool.metrics", "spool.traces"]


def test_a_target_is_made_once(world, tmp_path):
    backends = world(datadog=None)
    both = delivery(tmp_path, "datadog")
    both.deliver(run_batch())
    both.deliver(run_batch())
    assert len(backends["datadog"].taken) == 2


def test_without_its_packages_a_target_that_was_asked_for_keeps_all_and_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datadog.dogstatsd", None)
    monkeypatch.setitem(sys.modules, "ddtrace.trace", None)
    report = delivery(tmp_path, "datadog").deliver(run_batch())
    assert waiting(tmp_path) == ["datadog.events", "datadog.metrics", "datadog.traces"]
    assert report.targets["datadog"].startswith("import of datadog.dogstatsd")
    assert report.targets["datadog"].endswith("pip install 'airflow-batch-observability[datadog]'")


@pytest.mark.parametrize("target", ["datadog", "spool"])
def test_a_disk_that_cannot_be_written_is_told_and_does_not_stop_the_sending(world, tmp_path, caplog, target):
    backends = world(datadog=None)
    state = tmp_path / "state"
    state.write_text("a file in place of the folder")
    safe = []
    report = delivery(state, target).deliver(run_batch(), on_safe=lambda: safe.append(1))
    assert safe == [1]
    assert "the log file cannot be written: " in caplog.text
    assert "the spool cannot be written: " in caplog.text
    if target == "spool":
        assert report.targets == {"spool": f"{state / 'spool'} cannot be written"}
    else:
        assert report.targets == {"datadog": ""}
        assert len(backends["datadog"].taken) == 1


def test_a_spool_that_overflows_counts_what_it_dropped(tmp_path, caplog):
    full = delivery(tmp_path, "spool", spool_max_mb=1)
    batch = run_batch(name="large")
    large = replace(batch, points=batch.points * 50)
    for _ in range(12):
        full.deliver(large)
    assert "the spool is full: " in caplog.text
    told = sorted((tmp_path / "spool" / "spool").glob("*-telemetry-dropped.metrics.jsonl"))
    assert told
    (metric,) = json.loads(told[0].read_text("utf-8"))["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    (point,) = metric["sum"]["dataPoints"]
    assert metric["name"] == "batch_model.telemetry.dropped"
    assert point["asDouble"] >= 1
    assert {"key": "reason", "value": {"stringValue": "spool_full"}} in point["attributes"]
