"""
Frames from an observed process to its sidecar, over one end of a socket pair.

A frame is one JSON object on a line. Sending never waits: what the socket does not take stays in a bounded queue and
goes first with the next frame; what the queue does not take is counted. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

Frame = dict[str, Any]

_MAX_WAITING = 2000
_MAX_LINE = 1 << 20
ACK = b"ok\n"
# User code may let SIGPIPE kill its process.
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)

_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


class Channel:
    """
    The observed process's end. Safe for threads; a forked child may send too.

    Attributes:
        dropped: frames that neither the socket nor the queue took.
        broken: nobody is at the other end any more.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._identity = _identity(sock)
        self._lock = threading.RLock()
        self._waiting: deque[bytes] = deque()
        self.dropped = 0
        self.broken = False
        _channels.add(self)

    def after_fork(self) -> None:
        """Start afresh in a forked child: another thread may have held the lock; the parent sends what waits."""
        self._lock = threading.RLock()
        self._waiting.clear()
        self.dropped = 0

    def send(self, frame: Frame) -> None:
        """Send a frame, or queue it, without waiting. A sidecar that is gone is no error."""
        # A lone surrogate (a file name that is not UTF-8) becomes "?" here, or no format of any target could hold it.
        line = json.dumps(frame, separators=(",", ":"), default=str, ensure_ascii=False).encode("utf-8", "replace")
        line += b"\n"
        with self._lock:
            if len(self._waiting) >= _MAX_WAITING:
                self._flush()
            if len(self._waiting) >= _MAX_WAITING:
                self.dropped += 1
                return
            self._waiting.append(line)
            self._flush()

    def _flush(self) -> None:
        while self._waiting:
            try:
                if _identity(self._socket) != self._identity:
                    # User code has closed all descriptors, and ours has become something of its own.
                    raise BrokenPipeError
                sent = self._socket.send(self._waiting[0], _NO_SIGNAL)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.broken = True
                self._waiting.clear()
                return
            if sent < len(self._waiting[0]):
                self._waiting[0] = self._waiting[0][sent:]
            else:
                self._waiting.popleft()

    def drain(self, timeout_s: float) -> bool:
        """Wait until all queued frames are in the socket; False if they were not in time."""
        with self._lock:
            deadline = time.monotonic() + timeout_s
            self._flush()
            while self._waiting and (left := deadline - time.monotonic()) > 0:
                self._ready(selectors.EVENT_WRITE, left)
                self._flush()
            return not self._waiting

    def wait_acknowledged(self, timeout_s: float) -> bool:
        """Wait for the acknowledgement of the last frame; False if it did not come in time."""
        try:
            return self._ready(selectors.EVENT_READ, timeout_s) and self._socket.recv(len(ACK)) == ACK
        except (OSError, ValueError):  # a closed socket has no descriptor
            return False

    def _ready(self, event: int, timeout_s: float) -> bool:
        # poll(): select() takes descriptors below 1024 only.
        with selectors.PollSelector() as selector:
            selector.register(self._socket, event)
            return bool(selector.select(timeout_s))

    def close(self) -> None:
        """Close this end; the sidecar sees the end of the stream."""
        with contextlib.suppress(OSError):
            if _identity(self._socket) == self._identity:
                self._socket.close()
                return
        # Not ours any more: whoever has the descriptor now keeps it.
        self._socket.detach()


def _after_fork_in_child() -> None:
    for channel in list(_channels):
        channel.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _identity(sock: socket.socket) -> tuple[int, int]:
    status = os.fstat(sock.fileno())
    return status.st_dev, status.st_ino


class FrameReader:
    """The sidecar's side: bytes in, whole frames out, whatever the cuts. What is no frame is counted and skipped."""

    def __init__(self) -> None:
        self._buffer = b""
        self._passing_over = False
        self.broken = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Add bytes as they came; yield each frame that is now complete."""
        if self._passing_over:
            _, newline, data = data.partition(b"\n")
            self._passing_over = not newline
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > _MAX_LINE:
            self._buffer, self._passing_over = b"", True
            self.broken += 1
        for line in lines:
            try:
                frame = json.loads(line)
            except (ValueError, RecursionError):
                self.broken += 1
                continue
            if isinstance(frame, dict) and isinstance(frame.get("t"), str):
                yield frame
            else:
                self.broken += 1
