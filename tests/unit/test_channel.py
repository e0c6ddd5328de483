"""Frames over a real socket pair: never waiting, never lost without being counted, whole whatever the cuts."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batch_observability import channel as channel_module
from batch_observability.channel import ACK, OFFERED, PART, Channel, FrameReader

# Far more than a queue of the real length and a socket buffer hold, at this size of frame.
MANY = 4000
PADDING = "x" * 500
# "At once" for a machine with other things to do; a call that waited for a reader would wait for ever.
AT_ONCE_S = 5.0


def number(count: int) -> dict:
    return {"t": "number", "n": count, "padding": PADDING}


@contextmanager
def at_once():
    """Fail if the block waited for somebody."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < AT_ONCE_S


def received(sock: socket.socket, reader: FrameReader | None = None) -> list[dict]:
    """Return the frames that are in a socket now."""
    reader, frames = reader or FrameReader(), []
    sock.setblocking(False)
    while True:
        try:
            data = sock.recv(1 << 16)
        except BlockingIOError:
            return frames
        if not data:
            return frames
        frames += reader.feed(data)


def received_in_background(sock: socket.socket) -> tuple[threading.Thread, list[dict]]:
    """Read until the end of the stream, as a sidecar does."""
    frames: list[dict] = []

    def read() -> None:
        reader = FrameReader()
        while data := sock.recv(1 << 16):
            frames.extend(reader.feed(data))

    thread = threading.Thread(target=read)
    thread.start()
    return thread, frames


# --- Sending -----------------------------------------------------------------------------------------------------


def test_a_frame_arrives_as_it_was_sent(ends):
    ours, theirs = ends
    frame = {"t": "event", "text": 'ä "quoted"\nnext \ud800 \U0001f4a9', "n": 2**70, "none": None, "deep": {"a": [1.5]}}
    Channel(ours).send(frame)
    # A lone surrogate has no place in UTF-8, nor in any format of a target.
    assert received(theirs) == [{**frame, "text": frame["text"].replace("\ud800", "?")}]


def test_what_json_does_not_know_is_sent_as_text(ends):
    ours, theirs = ends
    Channel(ours).send({"t": "event", "text": os.sep.join, "id": socket.AF_UNIX})
    (frame,) = received(theirs)
    assert frame["text"] == str(os.sep.join)


def test_a_full_socket_does_not_make_anybody_wait(ends):
    ours, _ = ends
    channel = Channel(ours)
    with at_once():
        for count in range(MANY):
            channel.send(number(count))
    assert channel.dropped > 0
    assert not channel.broken


def test_the_queue_is_bounded_and_what_it_does_not_take_is_counted(ends):
    """Every frame arrives, in order, or is counted."""
    ours, theirs = ends
    channel = Channel(ours)
    for count in range(MANY):
        channel.send(number(count))
    reader = FrameReader()
    frames = received(theirs, reader)
    in_socket = len(frames)
    while not channel.drain(0):
        frames += received(theirs, reader)
    frames += received(theirs, reader)

    assert [frame["n"] for frame in frames] == list(range(MANY - channel.dropped))
    assert len(frames) - in_socket <= channel_module._MAX_WAITING + 1  # one may have been in both, in part
    assert reader.broken == 0


def test_after_a_jam_frames_are_taken_again(ends):
    ours, theirs = ends
    channel = Channel(ours)
    for count in range(MANY):
        channel.send(number(count))
    dropped = channel.dropped
    received(theirs)
    channel.send({"t": "late"})
    assert channel.dropped == dropped


def test_a_frame_larger_than_the_socket_arrives_whole(ends):
    ours, theirs = ends
    channel = Channel(ours)
    large = {"t": "event", "text": "x" * 900_000}
    with at_once():
        channel.send(large)
        channel.send({"t": "next"})
    thread, frames = received_in_background(theirs)
    assert channel.drain(AT_ONCE_S)
    channel.close()
    thread.join()
    assert frames == [large, {"t": "next"}]


def test_draining_waits_for_the_reader(ends):
    ours, theirs = ends
    channel = Channel(ours)
    for count in range(MANY):
        channel.send(number(count))
    thread, frames = received_in_background(theirs)
    assert channel.drain(AT_ONCE_S)
    channel.close()
    thread.join()
    assert len(frames) == MANY - channel.dropped


def test_draining_ends_in_time_if_nobody_reads(ends):
    ours, _ = ends
    channel = Channel(ours)
    for count in range(MANY):
        channel.send(number(count))
    with at_once():
        assert channel.drain(0.01) is False


def test_there_may_be_nothing_to_drain(ends):
    ours, _ = ends
    with at_once():
        assert Channel(ours).drain(60) is True


def test_frames_of_many_threads_arrive_whole(ends):
    ours, theirs = ends
    channel = Channel(ours)
    reading, frames = received_in_background(theirs)
    threads = [
        threading.Thread(target=lambda first=first: [channel.send(number(first + n)) for n in range(200)])
        for first in range(0, 1600, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert channel.drain(AT_ONCE_S)
    channel.close()
    reading.join()
    assert sorted(frame["n"] for frame in frames) == list(range(1600))
    # Of one thread, in order.
    for first in range(0, 1600, 200):
        mine = [frame["n"] for frame in frames if first <= frame["n"] < first + 200]
        assert mine == sorted(mine)


def test_a_forked_child_sends_its_own_and_not_what_waits_in_its_parent(ends):
    ours, theirs = ends
    channel = Channel(ours)
    channel._waiting.append(b'{"t":"of the parent"}\n')
    pid = os.fork()
    if pid == 0:
        try:
            channel.send({"t": "of the child"})
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert received(theirs) == [{"t": "of the child"}]
    channel.send({"t": "later"})
    assert received(theirs) == [{"t": "of the parent"}, {"t": "later"}]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # of Python 3.12: that is what is tested
def test_a_forked_child_does_not_inherit_a_held_lock(ends):
    """Another thread may be sending at the moment of the fork; in the child nobody would ever let go."""
    ours, theirs = ends
    channel = Channel(ours)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with channel._lock:
            held.set()
            let_go.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        try:
            channel.send({"t": "of the child"})
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    let_go.set()
    holder.join()
    assert received(theirs) == [{"t": "of the child"}]


def test_dropped_frames_of_the_parent_are_not_the_childs(ends):
    ours, _ = ends
    channel = Channel(ours)
    channel.dropped = 3
    channel.after_fork()
    assert channel.dropped == 0


# --- A sidecar that is gone --------------------------------------------------------------------------------------


def test_a_sidecar_that_is_gone_is_no_error(ends):
    ours, theirs = ends
    channel = Channel(ours)
    channel.send({"t": "before"})
    theirs.close()
    assert not channel.broken
    for count in range(3):
        channel.send(number(count))
    assert channel.broken
    assert channel.drain(60) is True
    assert channel.wait_acknowledged(60) is False


def test_a_sidecar_that_goes_during_a_jam_is_no_error(ends):
    ours, theirs = ends
    channel = Channel(ours)
    for count in range(MANY):
        channel.send(number(count))
    theirs.close()
    with at_once():
        assert channel.drain(60) is True
    assert channel.broken


def test_sending_after_the_end_is_no_error(ends):
    """A thread of user code may go on after its run has ended."""
    ours, _ = ends
    channel = Channel(ours)
    channel.close()
    channel.close()
    channel.send({"t": "late"})
    assert channel.broken
    assert channel.drain(60) is True


def test_a_closed_channel_is_not_acknowledged(ends):
    ours, _ = ends
    channel = Channel(ours)
    channel.close()
    assert channel.wait_acknowledged(0) is False


def test_a_process_may_have_many_files_open(ends):
    ours, theirs = ends
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1100:
        pytest.skip("the system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    low = os.dup(ours.fileno())
    high = os.dup2(low, 1090)
    os.close(low)
    with socket.socket(fileno=high) as sock:
        channel = Channel(sock)
        theirs.send(ACK)
        assert channel.wait_acknowledged(AT_ONCE_S) is True
        channel._waiting.append(b"\n")
        assert channel.drain(AT_ONCE_S) is True


# --- The acknowledgement -----------------------------------------------------------------------------------------


def test_an_acknowledgement_is_heard(ends):
    ours, theirs = ends
    channel = Channel(ours)
    theirs.send(ACK)
    assert channel.wait_acknowledged(60) is True


def test_an_acknowledgement_is_waited_for(ends):
    ours, theirs = ends
    channel = Channel(ours)
    channel.send({"t": "end"})
    theirs.setblocking(True)

    def acknowledge() -> None:
        theirs.recv(1 << 16)
        theirs.send(ACK)

    thread = threading.Thread(target=acknowledge)
    thread.start()
    assert channel.wait_acknowledged(60) is True
    thread.join()


def test_the_wait_for_an_acknowledgement_has_an_end(ends):
    ours, _ = ends
    with at_once():
        assert Channel(ours).wait_acknowledged(0.01) is False


def test_something_else_is_no_acknowledgement(ends):
    ours, theirs = ends
    theirs.send(b"no\n")
    assert Channel(ours).wait_acknowledged(60) is False


# --- Reading -----------------------------------------------------------------------------------------------------

names = st.text(max_size=20)
frames = st.dictionaries(names, names | st.integers() | st.floats(allow_nan=False) | st.none(), max_size=4).flatmap(
    lambda values: names.map(lambda kind: {**values, "t": kind})
)


def as_lines(sent: list[dict]) -> bytes:
    return b"".join(json.dumps(frame).encode() + b"\n" for frame in sent)


def fed(reader: FrameReader, data: bytes, cuts: list[int]) -> list[dict]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(places)]
    return [frame for piece in pieces for frame in reader.feed(piece)]


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 10_000), max_size=20))
def test_frames_are_whole_whatever_the_cuts(sent, cuts):
    reader = FrameReader()
    assert fed(reader, as_lines(sent), cuts) == sent
    assert reader.broken == 0


def test_frames_may_come_byte_by_byte():
    sent = [{"t": "a", "text": "äöü"}, {"t": "b"}]
    data = as_lines(sent)
    assert fed(FrameReader(), data, list(range(len(data)))) == sent


def is_frame(line: bytes) -> bool:
    try:
        value = json.loads(line)
    except ValueError:
        return False
    return isinstance(value, dict) and isinstance(value.get("t"), str)


garbage = (
    st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass"))
).filter(lambda line: b"\n" not in line and not is_frame(line))


@given(st.lists(frames | garbage, max_size=12), st.lists(st.integers(0, 10_000), max_size=12))
@example([b"", b"[]", b"1", b"null", b'{"t":1}', b"{}", b"\xff\xfe", b"\0", b'{"t":"a"', b"NaN"], [])
def test_what_is_no_frame_is_counted_and_passed_over(lines, cuts):
    data = b"".join(line + b"\n" if isinstance(line, bytes) else as_lines([line]) for line in lines)
    reader = FrameReader()
    assert fed(reader, data, cuts) == [line for line in lines if isinstance(line, dict)]
    assert reader.broken == sum(isinstance(line, bytes) for line in lines)


def test_a_line_of_brackets_is_counted_and_passed_over():
    reader = FrameReader()
    assert list(reader.feed(b"[" * 100_000 + b"\n" + as_lines([{"t": "a"}]))) == [{"t": "a"}]
    assert reader.broken == 1


def test_a_frame_that_is_not_complete_yet_is_not_counted():
    reader = FrameReader()
    assert list(reader.feed(b'{"t":"a"}\n{"t":')) == [{"t": "a"}]
    assert reader.broken == 0


def test_the_frame_after_a_huge_line_is_read():
    """What is kept of a line that does not end is bounded."""
    reader = FrameReader()
    for _ in range(50):
        assert list(reader.feed(b"x" * 65536)) == []
        assert len(reader._buffer) <= 1 << 20
    assert list(reader.feed(b"\n" + as_lines([{"t": "a"}]))) == [{"t": "a"}]
    assert reader.broken >= 1


def test_a_huge_line_is_counted_once():
    reader = FrameReader()
    for _ in range(50):
        assert list(reader.feed(b"x" * 65536)) == []
    list(reader.feed(b"\n"))
    assert reader.broken == 1


def test_the_rest_of_a_huge_line_is_no_frame():
    reader = FrameReader()
    list(reader.feed(b"x" * ((1 << 20) + 1)))
    assert list(reader.feed(b'{"t":"end"}\n{"t":"a"}\n')) == [{"t": "a"}]


# --- The process --------------------------------------------------------------------------------------------------


def test_a_sidecar_that_is_gone_does_not_kill_a_process_that_dies_of_sigpipe():
    """As programs do that write to a pipe which `head` may close."""
    code = (
        "import signal, socket; from batch_observability.channel import Channel;"
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL); ours, theirs = socket.socketpair(); theirs.close();"
        "Channel(ours).send({'t': 'x'})"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


# --- Optional frames ---------------------------------------------------------------------------------------------


def log_line(count: int, text: str = PADDING) -> dict:
    return {"t": "log", "event": text, "attributes": {"count": count}}


def joined(frames: list[dict]) -> list[dict]:
    """Return frames with those that came in parts put together."""
    found, texts = [], {}
    for frame in frames:
        if frame["t"] != PART:
            found.append(frame)
            continue
        texts[frame["pid"]] = texts.get(frame["pid"], "") + frame["text"]
        if frame["last"]:
            found.append(json.loads(texts.pop(frame["pid"])))
    return found


def test_an_optional_frame_arrives_with_its_number(ends):
    ours, theirs = ends
    channel = Channel(ours)
    channel.send(log_line(1), optional=True)
    channel.send(log_line(2), optional=True)
    assert channel.drain(AT_ONCE_S)
    pid = os.getpid()
    assert received(theirs) == [{**log_line(1), "pid": pid, "n": 1}, {**log_line(2), "pid": pid, "n": 2}]


def test_optional_frames_leave_room_for_all_others_which_overtake_them(ends):
    ours, theirs = ends
    channel = Channel(ours)
    with at_once():
        for count in range(MANY):
            channel.send(log_line(count), optional=True)
    assert channel.dropped_optional > 0
    # Nobody has read, and still what counts is in the socket at once.
    for count in range(20):
        channel.send(number(count))
    frames = received(theirs)
    assert [frame["n"] for frame in frames if frame["t"] == "number"] == list(range(20))
    assert channel.dropped == 0


def test_the_other_end_learns_how_many_there_were_before_the_next_frame(ends):
    ours, theirs = ends
    channel = Channel(ours)
    for count in range(MANY):
        channel.send(log_line(count), optional=True)
    channel.send({"t": "end"})
    # Where there was no room before, there is while this reads: what waited may come behind the end.
    frames = received(theirs)
    end = frames.index({"t": "end"})
    assert frames[end - 1] == {"t": OFFERED, "pid": os.getpid(), "n": MANY}
    # Once.
    channel.send({"t": "end"})
    assert not [frame for frame in received(theirs) if frame["t"] == OFFERED]


def test_optional_frames_keep_their_order_and_come_without_another_frame(ends):
    ours, theirs = ends
    channel = Channel(ours)
    for count in range(900):
        channel.send(log_line(count), optional=True)
    thread, frames = received_in_background(theirs)
    deadline = time.monotonic() + 20
    while len(frames) < 900 and time.monotonic() < deadline:
        time.sleep(0.01)
    channel.close()
    thread.join()
    assert [frame["attributes"]["count"] for frame in frames] == list(range(900))
    assert channel.dropped_optional == 0


def test_draining_brings_optional_frames_too(ends):
    ours, theirs = ends
    channel = Channel(ours)
    for count in range(900):
        channel.send(log_line(count), optional=True)
    thread, frames = received_in_background(theirs)
    assert channel.drain(AT_ONCE_S)
    channel.close()
    thread.join()
    assert len(frames) == 900


def test_a_long_optional_frame_comes_in_parts_and_others_come_in_between(ends):
    ours, theirs = ends
    channel = Channel(ours)
    long = log_line(1, '"ä\\' * 200_000)
    channel.send(long, optional=True)
    channel.send({"t": "end"})
    thread, frames = received_in_background(theirs)
    assert channel.drain(AT_ONCE_S)
    channel.close()
    thread.join()
    assert frames[-1]["t"] == PART
    assert {**long, "pid": os.getpid(), "n": 1} in joined(frames)
    assert {"t": "end"} in frames


def test_optional_frames_take_little_memory(ends):
    ours, _ = ends
    channel = Channel(ours)
    for count in range(100):
        channel.send(log_line(count, "x" * 200_000), optional=True)
    assert sum(map(len, channel._optional)) < 5_000_000
    assert channel.dropped_optional > 70


def test_optional_frames_of_forked_children_are_numbered_apart(ends):
    ours, theirs = ends
    channel = Channel(ours)
    channel.send(log_line(1), optional=True)
    pid = os.fork()
    if pid == 0:
        try:
            channel.send(log_line(2), optional=True)
            channel.drain(AT_ONCE_S)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert [(frame["pid"], frame["n"]) for frame in received(theirs)] == [(os.getpid(), 1), (pid, 1)]


def test_an_optional_frame_to_nobody_is_no_error(ends):
    ours, theirs = ends
    channel = Channel(ours)
    theirs.close()
    for count in range(10):
        channel.send(log_line(count), optional=True)
    assert channel.broken
