"""
What a command writes, read by its observer: what `batchobs run` has kept of it, and the files that it went to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from batch_observability.cron.capture import HEAD, TAIL_BYTES

_TAIL_LINES = 50
_READ = 1 << 16
_MAX_HEAD = 64
_PIECE = re.compile(rb"(stdout|stderr) (\d+) (\d+) ([01])")
_NAMES = {1: "stdout", 2: "stderr"}


class Piece(NamedTuple):
    """Something that was written: to which stream, when in Unix nanoseconds, and whether what follows is missing."""

    stream: str
    time_ns: int
    data: bytes
    gap: bool


class Kept:
    """
    The file that `batchobs run` keeps output in.

    Args:
        path: of the file, which is there once there is output.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._at = 0
        self.tail = b""

    def pieces(self) -> Iterator[Piece]:
        """Yield what is whole now and was not taken before, by whoever it was."""
        if self._descriptor < 0 and not self._open():
            return
        while (piece := self._next()) is not None:
            self.tail = (self.tail + piece.data)[-TAIL_BYTES:]
            yield piece
            # If this process is killed, another goes on there.
            os.pwrite(self._descriptor, HEAD % self._at, 0)

    def _open(self) -> bool:
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._at = int(os.pread(descriptor, len(HEAD % 0), 0))
            except ValueError:
                # It has just been made.
                os.close(descriptor)
                return False
            self._descriptor = descriptor
        return self._descriptor >= 0

    def _next(self) -> Piece | None:
        head, newline, _ = os.pread(self._descriptor, _MAX_HEAD, self._at).partition(b"\n")
        match = _PIECE.fullmatch(head)
        # What is no piece was written by a host that lost its power.
        if not newline or match is None:
            return None
        stream, time_ns, size, gap = match[1].decode(), int(match[2]), int(match[3]), match[4] == b"1"
        data = os.pread(self._descriptor, size, self._at + len(head) + 1)
        if len(data) < size:
            return None
        self._at += len(head) + 1 + len(data)
        return Piece(stream, time_ns, data, gap)


class Follower:
    """
    Reads a file that a command writes to, beside it.

    Args:
        descriptor: of the file.
        stream: of the command, that goes there.
        begins: where in the file.
        most: bytes of it that may become lines.
    """

    def __init__(self, descriptor: int, stream: int, begins: int, most: int) -> None:
        self._descriptor = descriptor
        self._name = _NAMES[stream]
        self._at = begins
        self._left = most
        self.missed = 0

    def look(self, take: Callable[[str, bytes], object], size: int | None = None) -> None:
        """Hand on what was written since the last look, up to that size of the file."""
        size = os.fstat(self._descriptor).st_size if size is None else size
        if size < self._at:
            # Somebody has cut it, as log rotation does.
            self._at = 0
        while self._at < size:
            if self._left <= 0:
                self.missed += size - self._at
                self._at = size
                return
            data = os.pread(self._descriptor, min(_READ, size - self._at, self._left), self._at)
            if not data:
                return
            self._at += len(data)
            self._left -= len(data)
            take(self._name, data)


def last_lines(tail: bytes) -> str:
    """Return the last lines of what was written as text, whatever bytes they are."""
    text = tail.decode("utf-8", "backslashreplace")
    if len(tail) >= TAIL_BYTES and "\n" in text[:-1]:
        # The first of them is a part of a line.
        text = text.partition("\n")[2]
    return "\n".join(text.splitlines()[-_TAIL_LINES:])
