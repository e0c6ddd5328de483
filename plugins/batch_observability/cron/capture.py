"""
What a command writes, kept beside being passed on: as log lines up to a bound, and its last bytes in any case.

Whoever passes it on is not kept waiting: what comes faster than it becomes lines is counted, not kept.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from batch_observability.cron.streams import NAMES, Followed

_TAIL_BYTES, _TAIL_LINES = 8192, 50
_MAX_WAITING = 4_000_000
_LOOKS_EACH_S = 1.0
_READ = _PIECE = 1 << 16
# Stream, Unix time in nanoseconds, bytes, and whether the bytes that come next are missing.
Piece = tuple[str, int, bytes, bool]


class Capture:
    """
    The output of one command.

    Args:
        most: bytes that become lines.
        make: makes what takes each piece, and at last is told how many bytes it did not get; in a thread of its own,
            when there is something to take.
    """

    def __init__(
        self, most: int, make: Callable[[], tuple[Callable[[Piece], object], Callable[[int], object]]]
    ) -> None:
        self._left = most
        self._make = make
        self._tail = b""
        self._waiting: deque[Piece] = deque()
        self._bytes_waiting = self._missed = 0
        self._changed = threading.Condition()
        self._give_up: float | None = None
        self._thread: threading.Thread | None = None

    def listener(self, stream: int) -> Callable[[memoryview], object]:
        """Return what is to be shown each piece that goes to a stream."""
        name = NAMES[stream]
        return lambda piece: self.hear(name, piece)

    def hear(self, stream: str, piece: memoryview) -> None:
        """Keep what there is room for, without waiting."""
        if self._left <= 0:
            self._keep(stream, piece)
            return
        for at in range(0, len(piece), _PIECE):
            self._keep(stream, piece[at : at + _PIECE])

    def _keep(self, stream: str, piece: memoryview) -> None:
        with self._changed:
            self._tail = (self._tail + bytes(piece[-_TAIL_BYTES:]))[-_TAIL_BYTES:]
            room = max(min(self._left, _MAX_WAITING - self._bytes_waiting), 0)
            taken = bytes(piece[:room])
            self._missed += len(piece) - len(taken)
            if not taken:
                return
            self._left -= len(taken)
            self._bytes_waiting += len(taken)
            self._waiting.append((stream, time.time_ns(), taken, len(taken) < len(piece)))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()
            self._changed.notify()

    def miss(self, count: int) -> None:
        """Count bytes that went by unseen."""
        with self._changed:
            self._missed += count

    @property
    def left(self) -> int:
        """How many bytes may still become lines."""
        return self._left

    def tail(self) -> str:
        """Return the last lines as text, whatever bytes they are."""
        text = self._tail.decode("utf-8", "backslashreplace")
        if len(self._tail) == _TAIL_BYTES and "\n" in text[:-1]:
            # The first of them is a part of a line.
            text = text.partition("\n")[2]
        return "\n".join(text.splitlines()[-_TAIL_LINES:])

    def finish(self, patience_s: float) -> None:
        """Let what waits become lines, for so long at most; then it is for `finish_apart`."""
        if self._thread is None:
            return
        with self._changed:
            self._give_up = time.monotonic() + patience_s
            self._changed.notify()
        self._thread.join()

    def finish_apart(self) -> None:
        """Let a child make lines of what still waits, so that this process may leave; it has no thread by now."""
        if not self._waiting or os.fork():
            return
        with suppress(Exception):
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            # Who reads our output is to see its end.
            os.closerange(1, os.sysconf("SC_OPEN_MAX"))
            self._give_up = float("inf")
            self._work()
        os._exit(0)

    def _run(self) -> None:
        self._take, self._end = self._make()
        self._work()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and self._give_up is None:
                    self._changed.wait()
                if self._give_up is not None and time.monotonic() > self._give_up:
                    return
                if not self._waiting:
                    break
                piece = self._waiting.popleft()
            self._take(piece)
            with self._changed:
                self._bytes_waiting -= len(piece[2])
        self._end(self._missed)


class Follower:
    """
    Reads a file that a command writes to, beside it.

    Args:
        followed: the file.
        capture: what is told of it.
    """

    def __init__(self, followed: Followed, capture: Capture) -> None:
        self._file = followed
        self._capture = capture
        self._at = followed.begins
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """Read what was written until now, and stop."""
        self._ended.set()
        self._thread.join()
        self._look()
        os.close(self._file.descriptor)

    def _run(self) -> None:
        while not self._ended.wait(_LOOKS_EACH_S):
            self._look()

    def _look(self) -> None:
        size = os.fstat(self._file.descriptor).st_size
        if size < self._at:
            # Somebody has cut it, as log rotation does.
            self._at = 0
        name = NAMES[self._file.stream]
        while self._at < size:
            if self._capture.left <= 0 and size - self._at > _TAIL_BYTES:
                self._capture.miss(size - _TAIL_BYTES - self._at)
                self._at = size - _TAIL_BYTES
            data = os.pread(self._file.descriptor, min(_READ, size - self._at), self._at)
            if not data:
                return
            self._at += len(data)
            self._capture.hear(name, memoryview(data))
