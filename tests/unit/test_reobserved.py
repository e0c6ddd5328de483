"""A run whose sidecar is gone: the next frame goes to another one, and no descriptor of others is touched."""

from __future__ import annotations

import gc
import os
import socket

import pytest

from batch_observability import Run
from batch_observability.channel import Channel, FrameReader
from batch_observability.run import set_current_run
from tests.unit.conftest import run_context


@pytest.fixture
def replacements():
    """Sidecars that take over one after the other: a function that starts the next, and the ends that they hold."""
    held, channels = [], []

    def reobserve():
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        held.append(theirs)
        channels.append(Channel(ours))
        return channels[-1]

    yield reobserve, held
    for channel in channels:
        channel.close()
    for end in held:
        end.close()


def heard(end):
    """Return kind and totals of the frames that have come."""
    return [(frame["t"], frame.get("read")) for frame in FrameReader().feed(end.recv(1 << 16))]


def test_where_the_sidecar_is_gone_another_one_hears_the_totals_and_the_frame_that_was_lost(ends, replacements):
    reobserve, held = replacements
    run = Run(run_context(), Channel(ends[0]), reobserve=reobserve)
    run.rows(read=5)
    ends[1].close()
    with run.stage("load"):
        run.rows(read=2)
    assert heard(held[0]) == [("rows", 5), ("stage", None), ("rows", 7), ("stage_end", None)]
    held[0].close()
    run.event("again")
    assert heard(held[1]) == [("rows", 7), ("event", None)]
    assert len(held) == 2


def test_where_there_is_to_be_no_other_sidecar_nobody_is_asked_again(ends):
    asked = []

    def refuse():
        asked.append(1)

    run = Run(run_context(), Channel(ends[0]), reobserve=refuse)
    ends[1].close()
    for _ in range(3):
        run.event("x")
    assert asked == [1]


def test_while_another_sidecar_is_started_no_second_one_is(ends, replacements):
    """By a signal handler that tells something, for one."""
    reobserve, held = replacements

    def interrupted():
        run.event("of a signal handler")
        return reobserve()

    run = Run(run_context(), Channel(ends[0]), reobserve=interrupted)
    ends[1].close()
    run.event("x")
    assert [kind for kind, _ in heard(held[0])] == ["event"]
    assert len(held) == 1


def test_a_forked_child_starts_no_sidecar_of_its_own(ends, replacements):
    reobserve, held = replacements
    run = Run(run_context(), Channel(ends[0]), reobserve=reobserve)
    set_current_run(run)
    ends[1].close()
    child = os.fork()
    if child == 0:
        run.event("x")
        os._exit(len(held))
    set_current_run(None)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_descriptor_that_is_somebody_elses_by_now_is_not_closed_with_the_old_channel(replacements):
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    run = Run(run_context(), Channel(ours), reobserve=replacements[0])
    del ours
    receiver, sender = os.pipe()
    # As user code does that closes all descriptors and opens its own.
    os.dup2(receiver, number)
    theirs.close()
    run.event("x")
    gc.collect()
    os.write(sender, b"x")
    try:
        assert os.read(number, 1) == b"x"
    finally:
        for descriptor in (receiver, sender):
            os.close(descriptor)
    os.close(number)


def test_a_run_that_counted_no_rows_tells_none_to_another_sidecar(ends, replacements):
    reobserve, held = replacements
    run = Run(run_context(), Channel(ends[0]), reobserve=reobserve)
    ends[1].close()
    run.event("x")
    assert heard(held[0]) == [("event", None)]
