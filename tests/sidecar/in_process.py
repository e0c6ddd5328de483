"""Observers in the process of the test: the loop as it is, without a process of its own."""

from __future__ import annotations

import socket
import threading
import traceback
from contextlib import contextmanager

from batch_observability.channel import ACK
from batch_observability.sidecar.loop import _Observer, observe_thread
from tests.sidecar.frames import lines, spooled


@contextmanager
def observing(sock, pidfd=None, *, separate=True):
    """Run an observer beside the test; wait at the end until it has finished."""
    failed = []

    def run():
        try:
            _Observer(sock, pidfd, separate=separate).run()
        except BaseException:  # told below
            failed.append(traceback.format_exc())

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive()
    assert not failed, failed[0]


def observe(pair, *frames):
    """Let an observer in this thread read frames that were sent before, after which the stream ends."""
    ours, theirs = pair
    ours.sendall(lines(*frames))
    ours.shutdown(socket.SHUT_WR)
    observe_thread(theirs)


def phase(*frames, separate=False):
    """Let an observer of its own see one process of a run to its end or pause, which it acknowledges."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(lines(*frames))
        _Observer(theirs, None, separate=separate).run()
        assert ours.recv(100) == ACK


def started(state):
    """Return how often the start of a run was counted."""
    return [metric["name"] for metric in spooled(state, "metrics")].count("batch_model.run.started")


def killed(popen, sock, pidfd, *frames):
    """Let an observer take in frames of a child that is then killed."""
    with observing(sock[1], pidfd):
        sock[0].sendall(lines(*frames))
        popen.kill()
        popen.wait()
