"""
Frames from an observed process to its sidecar, over one end of a socket pair.

A frame is one JSON object on a line. Sending never waits: what the socket does not take stays in a bounded queue and
goes first with the next frame; what the queue does not take is counted. Optional frames (log lines, which there may be
many of) have a queue of their own, are overtaken by all others, and fill the socket by half at most. Standard library
only.
"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import json
import os
import selectors
import socket
import struct
import termios
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

Frame = dict[str, Any]

_MAX_WAITING = 2000
_MAX_OPTIONAL, _MAX_OPTIONAL_BYTES = _MAX_WAITING // 2, 4_000_000
_MAX_LINE = 1 << 20
# Lines that are sent at once: no more than a socket takes as one piece, or those of forked children come in between.
_PIECE, _PART = 16_000, 8_000
_SOON_S, _IDLE = 0.02, 10
ACK = b"ok\n"
# How many optional frames a process had to send, which have numbers; and a piece of the text of a long one.
OFFERED, PART = "offered", "part"
# User code may let SIGPIPE kill its process.
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)

_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


class Channel:
    """
    The observed process's end. Safe for threads; a forked child may send too.

    Attributes:
        dropped: frames that neither the socket nor the queue took.
        dropped_optional: optional ones; the other end learns of them, and of those that this process left behind.
        broken: nobody is at the other end any more.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._identity = _identity(sock)
        self._lock = threading.RLock()
        self._waiting: deque[bytes] = deque()
        self._optional: deque[bytes] = deque()
        self._optional_bytes = self._offered = self._told_offered = 0
        # The rest of an optional line that the socket took a part of: nothing else may come before it.
        self._cut = b""
        self._flushes_later = False
        self._flushed_at = 0.0
        self._most_unread = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
        self.dropped = self.dropped_optional = 0
        self.broken = False
        _channels.add(self)

    def after_fork(self) -> None:
        """Start afresh in a forked child: another thread may have held the lock; the parent sends what waits."""
        self._lock = threading.RLock()
        self._forget()
        self._offered = self._told_offered = 0
        self._flushes_later = False
        self.dropped = self.dropped_optional = 0

    def _forget(self) -> None:
        self._waiting.clear()
        self._optional.clear()
        self._optional_bytes, self._cut = 0, b""

    def send(self, frame: Frame, *, optional: bool = False) -> None:
        """Send a frame, or queue it, without waiting. A sidecar that is gone is no error."""
        if optional:
            self._send_optional(frame)
            return
        line = _line(frame)
        with self._lock:
            if len(self._waiting) >= _MAX_WAITING:
                self._flush()
            if len(self._waiting) >= _MAX_WAITING:
                self.dropped += 1
                return
            if self._offered > self._told_offered:
                # It may be the last frame: by this the other end knows what it has not got.
                self._told_offered = self._offered
                self._waiting.append(_line({"t": OFFERED, "pid": os.getpid(), "n": self._offered}))
            self._waiting.append(line)
            self._flush()

    def _send_optional(self, frame: Frame) -> None:
        with self._lock:
            self._offered += 1
            if self._is_crowded():
                self._flush()
            if self.broken or self._is_crowded():
                self.dropped_optional += 1
                return
            parts = _parts({**frame, "pid": os.getpid(), "n": self._offered})
            self._optional.extend(parts)
            self._optional_bytes += sum(map(len, parts))
            now = time.monotonic()
            if now - self._flushed_at > _SOON_S or self._optional_bytes >= _PIECE:
                # Many at once wake the other end, and cost this one, once.
                self._flushed_at = now
                self._flush()
            if self._optional and not self._flushes_later:
                # Nothing else may be sent for long.
                with contextlib.suppress(RuntimeError):
                    _thread.start_new_thread(self._flush_later, ())
                    self._flushes_later = True

    def _flush_later(self) -> None:
        """Send what waits, a moment later; in a thread that ends when nothing has waited for a while."""
        idle = 0
        while True:
            time.sleep(_SOON_S)
            with self._lock:
                idle = 0 if self._optional else idle + 1
                self._flush()
                if idle == _IDLE:
                    self._flushes_later = False
                    return

    def _is_crowded(self) -> bool:
        return (
            len(self._optional) >= _MAX_OPTIONAL
            or self._optional_bytes >= _MAX_OPTIONAL_BYTES
            or len(self._waiting) >= _MAX_OPTIONAL
        )

    def _flush(self, *, fill: bool = False) -> None:
        """Send what the socket takes; with `fill` optional frames may take all of it."""
        try:
            if not (self._waiting or self._optional or self._cut):
                return
            if _identity(self._socket) != self._identity:
                # User code has closed all descriptors, and ours has become something of its own.
                raise BrokenPipeError
            while self._cut:
                self._cut = self._cut[self._socket.send(self._cut, _NO_SIGNAL) :]
            while self._waiting:
                sent = self._socket.send(self._waiting[0], _NO_SIGNAL)
                if sent < len(self._waiting[0]):
                    self._waiting[0] = self._waiting[0][sent:]
                else:
                    self._waiting.popleft()
            while self._optional and (fill or _unread(self._socket) < self._most_unread):
                self._send_piece()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.broken = True
            self._forget()

    def _send_piece(self) -> None:
        """Send the first of the optional lines, together with those that follow as far as they are short."""
        count, size = 1, len(self._optional[0])
        while count < len(self._optional) and size + len(self._optional[count]) <= _PIECE:
            size += len(self._optional[count])
            count += 1
        piece = b"".join(self._optional[at] for at in range(count))
        sent = self._socket.send(piece, _NO_SIGNAL)
        for _ in range(count):
            self._optional.popleft()
        self._optional_bytes -= size
        self._cut = piece[sent:]

    def drain(self, timeout_s: float) -> bool:
        """Wait until all queued frames are in the socket; False if they were not in time."""
        with self._lock:
            deadline = time.monotonic() + timeout_s
            self._flush(fill=True)
            while self._holds() and (left := deadline - time.monotonic()) > 0:
                self._ready(selectors.EVENT_WRITE, left)
                self._flush(fill=True)
            return not self._holds()

    def _holds(self) -> bool:
        return bool(self._waiting or self._optional or self._cut)

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


def _line(frame: Frame) -> bytes:
    # A lone surrogate (a file name that is not UTF-8) becomes "?" here, or no format of any target could hold it.
    text = json.dumps(frame, separators=(",", ":"), default=str, ensure_ascii=False)
    return text.encode("utf-8", "replace") + b"\n"


def _parts(frame: Frame) -> list[bytes]:
    """Return an optional frame as lines, none of which fills the socket."""
    line = _line(frame)
    if len(line) <= _PIECE:
        return [line]
    text = line.decode()
    number = {"pid": frame["pid"], "n": frame["n"]}
    return [
        _line({"t": PART, **number, "text": text[at : at + _PART], "last": at + _PART >= len(text)})
        for at in range(0, len(text), _PART)
    ]


def _unread(sock: socket.socket) -> int:
    """Return how many bytes the other end has yet to read; 0 where that is not known."""
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:  # not on macOS
        return 0
    return int(struct.unpack("i", answer)[0])


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
