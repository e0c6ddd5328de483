"""
The job's way to its observer: a socket in a private folder, where its processes bring their frames.

A frame goes on to the run as it is. What begins or ends a run is not for a job to say.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from contextlib import suppress
from pathlib import Path

from batch_observability.channel import Channel, FrameReader

_RECEIVE = 1 << 16
_WAITS_S = 5.0
_LAST_ROUNDS = 200
_NOT_FOR_JOBS = frozenset({"start", "end", "pause", "asked_to_end"})


class Gateway:
    """
    Takes what a job's processes send, in a thread of its own, and hands it on.

    Args:
        descriptor: of the socket where they come.
        path: of that socket.
        channel: to the run.
    """

    def __init__(self, descriptor: int, path: str, channel: Channel) -> None:
        self.path = Path(path)
        self._listener = socket.socket(fileno=descriptor)
        self._listener.setblocking(False)
        self._channel = channel
        self._readers: dict[socket.socket, FrameReader] = {}
        self._ending, self._end = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._ending, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hand on what is there, and let nobody in any more."""
        with suppress(OSError):
            self.path.unlink()
        self._end.close()
        self._thread.join(_WAITS_S)
        self._listener.close()

    def _run(self) -> None:
        ending = False
        # What the job left behind may write on and on.
        rounds = 0
        while rounds < _LAST_ROUNDS:
            ready = [key.fileobj for key, _ in self._selector.select(0 if ending else None)]
            served = False
            for sock in ready:
                if sock is self._ending:
                    ending = True
                elif isinstance(sock, socket.socket):
                    served = True
                    self._admit() if sock is self._listener else self._take(sock)
            rounds += ending
            if ending and not served:
                return

    def _admit(self) -> None:
        with suppress(OSError):
            joined, _ = self._listener.accept()
            joined.setblocking(False)
            self._readers[joined] = FrameReader()
            self._selector.register(joined, selectors.EVENT_READ)

    def _take(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(sock)
            self._readers.pop(sock)
            sock.close()
            return
        for frame in self._readers[sock].feed(data):
            if frame["t"] not in _NOT_FOR_JOBS:
                self._channel.send(frame)
        # The job's own channel waits meanwhile, and counts what it has no room for.
        self._channel.drain(_WAITS_S)


def sweep(folder: Path) -> None:
    """Remove sockets of runs whose observer was killed: nobody listens there."""
    with suppress(OSError), os.scandir(folder) as files:
        for file in files:
            if not file.name.endswith(".sock"):
                continue
            with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
                sock.setblocking(False)
                try:
                    sock.connect(file.path)
                except ConnectionRefusedError:
                    Path(file.path).unlink()
