"""
Where log lines go: stderr, a stream or a file. Writing never raises: what cannot be written is counted, and told by
the first line that can be.
"""

from __future__ import annotations

import io
import os
import re
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
# Lines of signal handlers, which come while a line is being written.
_MAX_LATE = 100
# Who holds the lock may be waiting for a full pipe.
_LOCKED_AT_MOST_S = 1.0


class Output:
    """
    One place for the lines of all threads of a process; forked children write whole lines to it as well.

    Args:
        stream: text or bytes; None for what `sys.stderr` is at that moment.
        about_lost: makes the line that says how many could not be written, and why.
    """

    def __init__(self, stream: Any = None, *, about_lost: Callable[[int, str], str]) -> None:
        self._stream = stream
        self._about_lost = about_lost
        self._late: deque[str] = deque(maxlen=_MAX_LATE)
        self._lost, self._why = 0, ""
        # A line of which a part was written has no end.
        self._torn = False
        self._reset()
        _outputs.add(self)

    def _reset(self) -> None:
        # Reentrant: a signal handler may log while we write, and must not wait for us.
        self._lock = threading.RLock()
        self._writing = False

    def is_terminal(self) -> bool:
        """Whether a person reads it."""
        try:
            return bool(self._target().isatty())
        except Exception:
            return False

    def write(self, line: str) -> None:
        """Write a line."""
        with self._lock:
            if self._writing:
                self._late.append(line)
                return
            self._writing = True
            try:
                self._write_each(line)
            finally:
                self._writing = False

    def _write_each(self, line: str) -> None:
        written = self._try(line)
        if self._late:
            late = list(self._late)
            for one in late:
                self._try(one)
            # What came meanwhile is of a stream that logs what it writes, and would never end.
            self._late.clear()
        if written and self._lost:
            lost, self._lost = self._lost, 0
            if not self._try(self._about_lost(lost, self._why)):
                self._lost = lost

    def _try(self, line: str) -> bool:
        try:
            self._put(line)
        except Exception as error:
            self._lost += 1
            self._why = type(error).__name__
            return False
        return True

    def _target(self) -> Any:
        return sys.stderr if self._stream is None else self._stream

    def _put(self, line: str) -> None:
        stream = self._target()
        if isinstance(stream, io.RawIOBase):
            self._put_raw(stream, line.encode() + b"\n")
            return
        if isinstance(stream, io.BufferedIOBase) or not hasattr(stream, "encoding"):
            self._put_unknown(stream, line + "\n")
        else:
            stream.write((line if _is_utf8(stream.encoding) else _ascii(line)) + "\n")
        stream.flush()

    @staticmethod
    def _put_unknown(stream: Any, line: str) -> None:
        try:
            stream.write(line.encode())
        except TypeError:
            stream.write(line)

    def _put_raw(self, stream: io.RawIOBase, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        while data:
            self._torn = True
            written = stream.write(data)
            if not written:
                raise BlockingIOError
            data = data[written:]
        self._torn = False


def open_file(path: str | os.PathLike[str]) -> io.FileIO:
    """
    Open a file for lines of several processes, which only its owner reads.

    Raises:
        OSError: if it cannot be written.
    """
    file = Path(path).expanduser()
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return io.FileIO(descriptor, "a")


def _is_utf8(encoding: Any) -> bool:
    # A stream of characters (StringIO) has None.
    return encoding is None or encoding in {"utf-8", "UTF-8", "utf8"} or str(encoding).lower().startswith("utf")


def _ascii(line: str) -> str:
    """Escape what is not ASCII: in a JSON line it is within texts only."""
    return _NOT_ASCII.sub(_escaped, line)


def _escaped(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


# --- Forks --------------------------------------------------------------------------------------------------------

_outputs: weakref.WeakSet[Output] = weakref.WeakSet()
_held: list[Any] = []


def _before_fork() -> None:
    """Wait until no line is half written: the child would have that half in its buffer, and write it again."""
    for output in list(_outputs):
        lock = output._lock  # noqa: SLF001
        if lock.acquire(timeout=_LOCKED_AT_MOST_S):
            _held.append(lock)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().release()


def _after_fork_in_child() -> None:
    _held.clear()
    for output in list(_outputs):
        output._reset()  # noqa: SLF001  (another thread may have held the lock)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
