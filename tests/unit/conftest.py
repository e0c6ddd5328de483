"""A run with a real socket pair, and the frames that arrive at its other end."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings

from batch_observability import guard, schema
from batch_observability.channel import Channel, Frame, FrameReader
from batch_observability.run import Run, RunContext, set_current_run

# A busy machine is no fault of what is tested.
settings.register_profile("unit", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
settings.load_profile("unit")

SECRET = "hunter2"


def run_context(**changes) -> RunContext:
    """A run of a task, with every field that log lines carry."""
    values = {
        "run_id": "0199c0de-0000-7000-8000-000000000001",
        "source": "airflow",
        "resource": "flights.score",
        "model": {"name": "flight-delay", "version": "3", "service": "flights", "owner": "team-flights", "tier": "2"},
        "tags": {"dag_id": "flights", "task_id": "score"},
        "trace_id": 0x0AF7651916CD43DD8448EB211C80319C,
        "span_id": 0x00F067AA0BA902B7,
        "attributes": {
            schema.DAG_ID: "flights",
            schema.TASK_ID: "score",
            schema.DAG_RUN_ID: "manual__2013-02-01",
            schema.TRY_NUMBER: 1,
            schema.MAP_INDEX: -1,
        },
        "env": "test",
    }
    return RunContext(**{**values, **changes})


@dataclass
class Wire:
    """An active run, and the end of the socket that its sidecar would hold."""

    run: Run
    channel: Channel
    sidecar: socket.socket
    reader: FrameReader

    def frames(self, kind: str | None = None) -> list[Frame]:
        """Return what has come since the last call, of one kind or all. Sending is synchronous: nothing is awaited."""
        found: list[Frame] = []
        all_in_socket = False
        while not all_in_socket:
            all_in_socket = self.channel.drain(0)
            with suppress(BlockingIOError):
                while data := self.sidecar.recv(1 << 16):
                    found += self.reader.feed(data)
        return [frame for frame in found if kind in (None, frame["t"])]

    def tree(self) -> list[tuple[str, str]]:
        """Return (stage, outer stage) by name, in the order of their beginning; "" for a stage right in the run."""
        stages = {frame["id"]: frame for frame in self.frames("stage")}
        names = {0: ""} | {span_id: frame["name"] for span_id, frame in stages.items()}
        return [(frame["name"], names[frame["parent"]]) for frame in stages.values()]


@pytest.fixture
def ends():
    """Both ends of a socket pair."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def wire(ends):
    """An active run that is the current one, masking one secret as Airflow would."""
    ours, theirs = ends
    theirs.setblocking(False)
    channel = Channel(ours)
    run = Run(run_context(), channel, lambda text: text.replace(SECRET, "***"))
    set_current_run(run)
    yield Wire(run, channel, theirs, FrameReader())
    set_current_run(None)


@pytest.fixture
def outside_pytest(monkeypatch):
    """As in a task: the guard logs, once for each place, and does not raise."""
    monkeypatch.delenv("PYTEST_VERSION")
    monkeypatch.setattr(guard, "_told", set())
