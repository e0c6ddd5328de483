"""What `batchobs run` keeps of a command's output is read by its observer as it was written, whoever reads when."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_observability.cron.capture import HEAD, TAIL_BYTES, Capture
from batch_observability.cron.output import Follower, Kept, last_lines

PIECES = st.lists(st.tuples(st.sampled_from((1, 2)), st.binary(min_size=1, max_size=300)), max_size=20)
NAMES = {1: "stdout", 2: "stderr"}


def write(path: Path, pieces: list[tuple[int, bytes]], most: int = 10_000) -> Capture:
    capture = Capture(str(path), most)
    for stream, data in pieces:
        capture.listener(stream)(memoryview(data))
    return capture


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kept.out"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(pieces=PIECES)
def test_it_is_read_as_it_was_written(path, pieces):
    capture = write(path, pieces)
    kept = Kept(str(path))
    assert [(piece.stream, piece.data) for piece in kept.pieces()] == [(NAMES[stream], data) for stream, data in pieces]
    written = b"".join(data for _, data in pieces)[-TAIL_BYTES:]
    assert capture.tail() == kept.tail == written
    assert capture.missed == 0
    capture.close()
    path.unlink(missing_ok=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(pieces=PIECES, most=st.integers(0, 2000))
def test_what_there_is_no_room_for_is_counted(path, pieces, most):
    capture = write(path, pieces, most)
    found = list(Kept(str(path)).pieces())
    written = sum(len(data) for _, data in pieces)
    assert sum(len(piece.data) for piece in found) == min(written, most)
    assert capture.missed == max(written - most, 0)
    # Only after the last piece may something be missing.
    assert not any(piece.gap for piece in found[:-1])
    capture.close()
    path.unlink(missing_ok=True)


def test_another_reader_goes_on_where_one_was_killed(path):
    write(path, [(1, b"one\n"), (2, b"two\n"), (1, b"three\n")])
    first = Kept(str(path)).pieces()
    assert [next(first).data, next(first).data] == [b"one\n", b"two\n"]
    # It may have been killed before it had done something with the last that it took: that is taken again.
    assert [piece.data for piece in Kept(str(path)).pieces()] == [b"two\n", b"three\n"]
    assert list(Kept(str(path)).pieces()) == []


def test_what_comes_later_is_read_later(path):
    kept = Kept(str(path))
    assert list(kept.pieces()) == []
    capture = write(path, [(1, b"one")])
    assert [piece.data for piece in kept.pieces()] == [b"one"]
    capture.hear("stderr", memoryview(b"two"))
    assert [piece.data for piece in kept.pieces()] == [b"two"]


def test_a_file_that_has_just_been_made_is_read_when_there_is_something(path):
    path.write_text("")
    kept = Kept(str(path))
    assert list(kept.pieces()) == []
    path.write_bytes(HEAD % len(HEAD % 0) + b"stdout 5 3 0\none")
    assert [piece.data for piece in kept.pieces()] == [b"one"]


@pytest.mark.parametrize(
    "rest", [b"stdout 5 9 0\ncut", b"stdo", b"\0" * 100, b"stdout 5 x 0\n", b"\n\n\n", b"\xff 1 1 1\n"]
)
def test_what_a_power_loss_left_ends_it(path, rest):
    write(path, [(1, b"one")]).close()
    with path.open("ab") as file:
        file.write(rest)
    assert [piece.data for piece in Kept(str(path)).pieces()] == [b"one"]


def test_it_is_private(path):
    write(path, [(1, b"one")])
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_made_keeps_nobody_from_hearing_the_last_words(tmp_path):
    capture = write(tmp_path / "missing/kept.out", [(1, b"one\n"), (1, b"two\n")])
    assert capture.tail() == b"one\ntwo\n"
    assert capture.missed == 8


def test_a_file_is_followed_from_where_the_command_began(tmp_path):
    file = tmp_path / "log"
    file.write_bytes(b"before\n")
    heard: list[bytes] = []
    with file.open("rb") as opened:
        follower = Follower(opened.fileno(), 1, 7, 10)
        with file.open("ab", buffering=0) as out:
            out.write(b"one\n")
            follower.look(lambda _stream, data: heard.append(data))
            out.write(b"two\nmore than ten bytes\n")
            follower.look(lambda _stream, data: heard.append(data), 15)
            follower.look(lambda _stream, data: heard.append(data))
        assert b"".join(heard) == b"one\ntwo\nmo"
        assert follower.missed == len(b"re than ten bytes\n")
        # Log rotation cuts it.
        file.write_bytes(b"new\n")
        follower = Follower(opened.fileno(), 1, 100, 10)
        follower.look(lambda _stream, data: heard.append(data))
    assert heard[-1] == b"new\n"


def test_the_last_lines_are_whole_ones():
    assert last_lines(b"one\ntwo \xff\n") == "one\ntwo \\xff"
    long = last_lines((b"x" * 99 + b"\n") * 100)
    assert len(long.splitlines()) == 50
    cut = (b"a line that is cut\n" + b"x" * TAIL_BYTES)[-TAIL_BYTES:-10] + b"\nthe last"
    assert last_lines(cut.rjust(TAIL_BYTES, b"z")) == "the last"
