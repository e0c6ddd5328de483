"""
The observer's end of the socket: frames as they come.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable

from batch_observability.channel import ACK, Frame, FrameReader

_RECEIVE = 1 << 16
# Reads after which a socket that was full is empty, with whatever it was full of.
_FULL = 100


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

    def linger(self, pidfd: int, limit_s: float, add: Callable[[Frame], object]) -> None:
        """Take in what comes until a process has exited, for so long at most."""
        give_up = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(pidfd, selectors.EVENT_READ)
            listening = selector.register(self._socket, selectors.EVENT_READ)
            while (left := give_up - time.monotonic()) > 0:
                ready = {key.fd for key, _ in selector.select(left)}
                if pidfd in ready:
                    return
                if listening.fd in ready and not self.take(add):
                    selector.unregister(self._socket)

    def drain(self, add: Callable[[Frame], object]) -> None:
        """Take in all that was written before the death of the writer: it survives SIGKILL (FACTS)."""
        # A child that it leaves behind may write on and on.
        for _ in range(_FULL):
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
