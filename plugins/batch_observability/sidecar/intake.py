"""
The observer's end of the socket: frames as they come.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from batch_observability.channel import ACK, Frame, FrameReader

_RECEIVE = 1 << 16


class Intake:
    """
    Takes frames from a socket.

    Args:
        sock: the observer's end; waited for until the first frame, then never.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = FrameReader()

    @property
    def descriptor(self) -> int:
        """To be waited for."""
        return self._socket.fileno()

    @property
    def broken(self) -> int:
        """Lines that were no frames."""
        return self._reader.broken

    def first(self) -> list[Frame]:
        """Wait for the first frame; return it with what came along, or nothing if the stream ended before it."""
        while data := self._receive():
            if frames := list(self._reader.feed(data)):
                self._socket.setblocking(False)
                return frames
        return []

    def take(self, add: Callable[[Frame], object]) -> bool:
        """Take in what is there; False at the end of the stream."""
        try:
            data = self._receive()
        except BlockingIOError:
            return True
        for frame in self._reader.feed(data):
            add(frame)
        return bool(data)

    def drain(self, add: Callable[[Frame], object]) -> None:
        """Take in all that was written before the death of the writer: it survives SIGKILL (FACTS)."""
        while True:
            try:
                data = self._receive()
            except BlockingIOError:
                return
            if not data:
                return
            for frame in self._reader.feed(data):
                add(frame)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE)
        except ConnectionError:
            return b""

    def acknowledge(self) -> None:
        """Say that the ending is safe; raises OSError if nobody is there to hear it."""
        self._socket.send(ACK)

    def close(self) -> None:
        """Close it."""
        self._socket.close()
