"""A run that is deferred or rescheduled: two observers, one run."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager

import pytest

from batch_observability.channel import ACK
from batch_observability.sidecar.loop import _Observer, observe_thread
from tests.live import wait_until
from tests.sidecar.frames import START_NS, at, context, end, lines, rows, spooled, stage, stage_end, start
from tests.sidecar.in_process import observe, started

# An observer watches as long as pytest lives, where a test gets its frames wrong.
pytestmark = pytest.mark.timeout(60)


@contextmanager
def socket_pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_run_that_pauses_goes_on_in_another_process_as_one_run(state):
    first, second = context(), context(start_ns=at(500), resumed=True)
    for frames in (
        (
            start(os.getpid(), state, first),
            stage(1, "ask", 1),
            stage_end(1, 2),
            rows(9, 5),
            {"t": "pause", "ts": at(3)},
        ),
        (start(os.getpid(), state, second), stage(2, "take", 501), stage_end(2, 502), rows(9, 7), end(seconds=510)),
    ):
        with socket_pair() as (ours, theirs):
            ours.sendall(lines(*frames))
            _Observer(theirs, None, separate=True).run()
            assert ours.recv(100) == ACK
        if frames[0]["context"]["resumed"] is False:
            (paused,) = (state / "paused").iterdir()
            assert paused.stat().st_mode & 0o777 == 0o600
            assert spooled(state, "traces") == []
    assert list((state / "paused").iterdir()) == []
    run, ask, take = spooled(state, "traces")
    assert (int(run["startTimeUnixNano"]), int(run["endTimeUnixNano"])) == (START_NS, at(510))
    assert run["attributes"]["batch_model.rows.read"] == 12
    assert {ask["parentSpanId"], take["parentSpanId"]} == {run["spanId"]}
    wait_until(lambda: started(state) == 1, "the start is told", 20, lambda: spooled(state, "metrics"), every=0.02)


def test_a_run_that_pauses_in_a_thread_tells_its_start_too(state):
    for frames in (
        (start(os.getpid(), state), {"t": "pause", "ts": at(3)}),
        (start(os.getpid(), state, context(resumed=True)), end(seconds=510)),
    ):
        with socket_pair() as (ours, theirs):
            ours.sendall(lines(*frames))
            observe_thread(theirs)
    assert started(state) == 1


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_run_that_paused_elsewhere_goes_on_without_its_past(pair, state, text, caplog):
    (state / "paused").mkdir(parents=True)
    paused = state / "paused" / "0199-run.json"
    if text is not None:
        paused.write_text(text)
    observe(pair, start(os.getpid(), state, context(resumed=True)), rows(1, 7), end())
    (run,) = spooled(state, "traces")
    assert run["attributes"]["batch_model.rows.read"] == 7
    assert started(state) == 0
    assert ("cannot be used" in caplog.text) == (text is not None)
    assert not paused.exists()


def test_a_pause_that_cannot_be_kept_is_told_and_acknowledged(pair, state, caplog):
    state.mkdir()
    (state / "paused").write_text("a file in place of the folder")
    observe(pair, start(os.getpid(), state), {"t": "pause", "ts": at(3)})
    assert "cannot be written, the run goes on without its past" in caplog.text
    assert pair[0].recv(100) == ACK
