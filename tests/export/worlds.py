"""Stands in for backends: each takes all that it is sent, or fails in a way that a test gives."""

from __future__ import annotations

import json
import threading

import pytest

from batch_observability.config import Settings
from batch_observability.export import deliver
from batch_observability.export.deliver import Delivery
from batch_observability.export.target import Choice, ExportError


class Backend:
    """Takes batches, unless `fault`, which is called with each, raises."""

    def __init__(self, name, fault=None):
        self.name = name
        self.fault = fault
        self.taken = []
        self.attempts = 0
        self._lock = threading.Lock()

    def send(self, batch):
        with self._lock:
            self.attempts += 1
        if self.fault:
            self.fault(batch)
        with self._lock:
            self.taken.append(batch)

    def signals(self):
        """Return the signals of what it has taken, sorted: one for each time that it took one."""
        with self._lock:
            return sorted(signal for batch in self.taken for signal in batch.signals)

    def names(self):
        """Return the names of the batches that it has taken, in order."""
        with self._lock:
            return [batch.name.partition("-")[2] or batch.name for batch in self.taken]


@pytest.fixture
def world(monkeypatch):
    """Return a function that puts backends in the place of the real ones: names, with what is called for each batch."""

    def put(**faults):
        backends = {name: Backend(name, fault) for name, fault in faults.items()}
        monkeypatch.setattr(deliver, "make_target", lambda name, *_: backends[name])
        return backends

    return put


def failing(error, signal=None, times=1000):
    """Return a fault: so many times this error, for batches with this signal or for all."""
    left, lock = [times], threading.Lock()

    def fault(batch):
        if signal in batch.signals or signal is None:
            with lock:
                left[0] -= 1
                if left[0] < 0:
                    return
            raise error

    return fault


def refusing(signal, **options):
    """Return a fault: batches with this signal are refused."""
    return failing(ExportError({signal: f"{signal} are refused"}), signal, **options)


def delivery(state, *targets, patience_s=0, **settings):
    return Delivery(Settings(state_dir=str(state), **settings), Choice(targets, ()), patience_s=patience_s)


def log_lines(state):
    path = state / "logs" / "batch_models.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def dropped(state):
    """Return what waits in the spool to be told as dropped: reason and number of each point, by target."""
    found = {}
    for path in sorted((state / "spool").glob("*/*-telemetry-dropped.metrics.jsonl")):
        metrics = json.loads(path.read_text("utf-8"))["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
        for metric in metrics:
            assert metric["name"] == "batch_model.telemetry.dropped"
            (point,) = metric["sum"]["dataPoints"]
            tags = {item["key"]: item["value"]["stringValue"] for item in point["attributes"]}
            # Lost telemetry is told apart by environment.
            assert {"env", "service", "reason"} == tags.keys()
            found.setdefault(path.parent.name, []).append((tags["reason"], point["asDouble"]))
    return found
