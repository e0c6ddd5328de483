"""The observer's loop in this process: frames from a socket pair, deaths of real processes, signals in the spool."""

from __future__ import annotations

import os
import signal
import socket
import sys

import pytest

from batch_observability.channel import ACK
from batch_observability.export.spool import Spool
from batch_observability.sidecar import autopsy, loop
from batch_observability.sidecar.loop import observe_process, observe_thread
from tests.live import wait_until
from tests.sidecar.frames import (
    RUN_SPAN,
    at,
    end,
    lines,
    log_lines,
    rows,
    spooled,
    stage,
    stage_end,
    start,
)
from tests.sidecar.in_process import observe, observing

# An observer is a process of one thread; here it shares one with pytest.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
    # An observer watches as long as pytest lives, where a test gets its frames wrong.
    pytest.mark.timeout(60),
]
BROKEN = {"type": "ValueError", "message": "no", "stack": ""}


def test_a_run_that_tells_its_end_is_delivered_and_acknowledged(pair, state):
    observe(pair, start(os.getpid(), state), stage(1, "load", 1), rows(1, 5), stage_end(1, 2), end())
    run, load = spooled(state, "traces")
    assert run["attributes"]["batch_model.outcome"] == "success"
    assert int(run["spanId"], 16) == RUN_SPAN
    assert (load["attributes"]["resource.name"], load["parentSpanId"]) == ("load", run["spanId"])
    assert pair[0].recv(100) == ACK
    (begun,), (ended,) = log_lines(state, starts=True), log_lines(state)
    assert (begun["level"], begun["batch_model.owner"]) == ("info", "team-churn")
    assert (ended["event"], ended["batch_model.rows.read"]) == ("batch model run finished", 5)
    names = [metric["name"] for metric in spooled(state, "metrics")]
    assert names.count("batch_model.run.started") == names.count("batch_model.run.finished") == 1


def test_what_the_run_says_of_itself_counts_where_no_sample_could_be_taken(pair, state):
    gone = 2**22 + 1  # above the highest pid that Linux gives
    observe(pair, start(gone, state), end())
    (run,) = spooled(state, "traces")
    assert run["attributes"]["batch_model.memory.peak"] == 50_000_000
    assert run["attributes"]["batch_model.cpu.time"] == 2.5


def test_frames_may_be_cut_anywhere(pair, state):
    ours, theirs = pair
    with observing(theirs, separate=False):
        for byte in lines(start(os.getpid(), state), rows(1, 5), end()):
            ours.send(bytes([byte]))
    assert spooled(state, "traces")[0]["attributes"]["batch_model.rows.read"] == 5


def test_what_is_no_frame_is_counted(pair, state):
    ours, theirs = pair
    ours.sendall(lines(start(os.getpid(), state)) + b"not json\n[]\n" + lines(end(dropped=1)))
    observe_thread(theirs)
    assert spooled(state, "traces")[0]["attributes"]["batch_model.dropped"] == 3


@pytest.mark.parametrize("data", [b"", b'{"t": "sta', lines({"t": "end", "outcome": "success"})])
def test_a_stream_without_a_start_is_no_run(pair, state, data):
    ours, theirs = pair
    ours.sendall(data)
    ours.shutdown(socket.SHUT_WR)
    observe_thread(theirs)
    assert not state.exists()


def test_a_task_that_is_reset_before_its_start_is_no_run(state):
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with theirs:
            # With a linger of 0 s closing sends a reset.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
            observe_thread(theirs)
    assert not state.exists()


def test_observing_from_a_thread_never_raises(pair, state, caplog):
    observe(pair, {**start(os.getpid(), state), "usage": {}})
    assert "observing failed, the task is not affected" in caplog.text


@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGTERM, "SIGTERM")])
def test_a_process_that_is_killed_is_told_by_its_pidfd_with_what_it_had_sent(pair, child, state, number, name):
    ours, theirs = pair
    popen, pidfd = child
    with observing(theirs, pidfd):
        # The stream stays open, as when a forked child of the task holds it too.
        ours.sendall(lines(start(popen.pid, state), stage(1, "load", 1), rows(1, 5)))
        popen.send_signal(number)
        popen.wait()
    run, load = spooled(state, "traces")
    attributes = run["attributes"]
    assert (attributes["batch_model.outcome"], attributes["batch_model.stage"]) == ("killed", "load")
    assert (attributes["batch_model.rows.read"], load["status"]["code"]) == (5, 2)
    assert attributes.get("batch_model.signal", name) == name
    (event,) = spooled(state, "events")
    assert event["attributes"]["aggregation_key"] == "churn:killed"


def test_a_process_that_nobody_reaps_yet_is_told_with_its_cause(pair, child, state):
    ours, theirs = pair
    popen, pidfd = child
    with observing(theirs, pidfd):
        ours.sendall(lines(start(popen.pid, state)))
        popen.kill()
        wait_until(lambda: spooled(state, "traces"), "the run is told", 20, every=0.02)
    (run,) = spooled(state, "traces")
    assert run["attributes"]["error.type"] == "SIGKILL"


def test_without_a_pidfd_the_end_of_the_stream_tells_the_death(pair, child, state, monkeypatch):
    monkeypatch.setattr(autopsy, "_REAPED_WITHIN_S", 0.05)
    ours, theirs = pair
    popen, _ = child
    popen.kill()
    popen.wait()
    ours.sendall(lines(start(popen.pid, state), rows(1, 5)))
    ours.close()
    observe_thread(theirs)
    (run,) = spooled(state, "traces")
    assert (run["attributes"]["batch_model.outcome"], run["attributes"]["batch_model.rows.read"]) == ("killed", 5)


def test_a_process_that_stopped_talking_long_before_it_ended_is_lost(pair, child, state, monkeypatch):
    monkeypatch.setattr(loop, "_DYING_S", 0.0)
    ours, theirs = pair
    popen, pidfd = child
    with observing(theirs, pidfd):
        ours.sendall(lines(start(popen.pid, state, sample_interval=0.05), rows(1, 5)))
        ours.shutdown(socket.SHUT_WR)
        # The start is told at the first look: by then the end of the stream has been seen.
        wait_until(lambda: spooled(state, "metrics"), "the observer has looked", 20, every=0.02)
        popen.stdin.close()
        popen.wait()
    (run,) = spooled(state, "traces")
    assert run["attributes"]["batch_model.outcome"] == "lost"
    (event,) = spooled(state, "events")
    assert event["attributes"]["aggregation_key"] == "churn:killed"


def test_the_start_is_told_while_the_run_goes_on_and_only_once(pair, child, state):
    ours, theirs = pair
    popen, pidfd = child
    with observing(theirs, pidfd):
        ours.sendall(lines(start(popen.pid, state, sample_interval=0.05)))
        wait_until(lambda: spooled(state, "metrics"), "the start is told", 20, every=0.02)
        assert [metric["name"] for metric in spooled(state, "metrics")] == ["batch_model.run.started"]
        ours.sendall(lines(end()))
    names = [metric["name"] for metric in spooled(state, "metrics")]
    assert names.count("batch_model.run.started") == 1


def test_a_thread_tells_the_start_with_the_end(pair, child, state):
    ours, theirs = pair
    popen, _ = child
    with observing(theirs, separate=False):
        ours.sendall(lines(start(popen.pid, state, sample_interval=0.01)))
        ours.sendall(lines(end()))
    names = [metric["name"] for metric in spooled(state, "metrics")]
    assert names.count("batch_model.run.started") == 1


@pytest.mark.parametrize("wait", [False, True])
def test_the_end_is_acknowledged_when_it_is_on_disk_or_where_the_container_ends_when_it_is_sent(
    pair, state, monkeypatch, wait
):
    ours, theirs = pair
    acknowledged = []
    original = loop.Delivery.deliver

    def deliver(self, batch, change, on_safe, **options):
        def looked(on_disk):
            on_safe(on_disk)
            ours.setblocking(False)
            try:
                acknowledged.append(ours.recv(100))
            except BlockingIOError:
                acknowledged.append(b"")

        return original(self, batch, change, looked, **options)

    monkeypatch.setattr(loop.Delivery, "deliver", deliver)
    ours.sendall(lines(start(os.getpid(), state), end(wait=wait)))
    observe_thread(theirs)
    assert acknowledged == [b"" if wait else ACK]
    assert not wait or ours.recv(100) == ACK


def test_a_frame_of_another_version_that_lacks_a_field_does_not_cost_the_run(pair, state):
    observe(pair, start(os.getpid(), state), {"t": "rows", "ts": at(1), "pid": 1, "read": 5}, end())
    (run,) = spooled(state, "traces")
    assert run["attributes"]["batch_model.dropped"] == 1


def test_stages_beyond_the_setting_are_dropped(pair, state):
    observe(pair, start(os.getpid(), state, max_stages=1), stage(1, "a", 1), stage(2, "b", 2), end())
    assert spooled(state, "traces")[0]["attributes"]["batch_model.dropped"] == 1
    assert len(spooled(state, "traces")) == 2


def test_a_process_of_ours_reaps_nobody_and_writes_its_warnings_to_a_file(pair, state, monkeypatch):
    before = signal.getsignal(signal.SIGCHLD)

    def full(self, batch, targets, change):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spool, "put", full)
    ours, theirs = pair
    ours.sendall(
        lines({**start(os.getpid(), state), "path": ["/nonexistent/of/the/task"]}, end("failed", error=BROKEN))
    )
    try:
        observe_process(theirs, None)
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGCHLD, before)
        sys.path.remove("/nonexistent/of/the/task")
    assert "the spool cannot be written: " in (state / "logs" / "observer.log").read_text("utf-8")
    assert log_lines(state)[0]["error.kind"] == "ValueError"
    assert pair[0].recv(100) == ACK
