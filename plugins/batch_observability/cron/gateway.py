"""
The job's way to its observer: a socket in a private folder, where its processes bring their frames.

A frame goes on to the observer as it is. What begins or ends a run is not for a job to say.
"""

from __future__ import annotations

import os
import selectors
import socket
import stat
import threading
from contextlib import suppress
from pathlib import Path

from batch_observability.channel import Channel, FrameReader
from batch_observability.private import private_folder

_FOLDER = "channels"
# The system takes 107 bytes, macOS 103.
_MAX_PATH = 100
_RECEIVE = 1 << 16
_WAITS_S = 5.0
_LAST_ROUNDS = 200
_NOT_FOR_JOBS = frozenset({"start", "end", "pause", "asked_to_end"})


def socket_path(state: Path, run_id: str) -> Path:
    """
    Return where the socket of a run is to be: in the state folder, or where its path is too long, in /tmp.

    Raises:
        OSError: if there can be no private folder for it.
    """
    name = f"{run_id[:18]}.sock"
    folder = state / _FOLDER
    if len(os.fsencode(folder / name)) > _MAX_PATH:
        folder = Path(f"/tmp/batchobs-{os.geteuid()}")  # noqa: S108  (it is ours, or refused)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise PermissionError(f"{folder} is not a folder that is ours alone")
    else:
        private_folder(folder)
    return folder / name


class Gateway:
    """
    Listens for a job's processes, and hands on what they send.

    Args:
        path: of the socket.

    Raises:
        OSError: if there can be no socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        try:
            with suppress(FileNotFoundError):
                path.unlink()
            self._listener.bind(os.fspath(path))
            path.chmod(0o600)
            self._listener.listen(64)
        except OSError:
            self._listener.close()
            raise
        self._listener.setblocking(False)
        self._readers: dict[socket.socket, FrameReader] = {}
        self._ending, self._end = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._ending, selectors.EVENT_READ)
        self._thread: threading.Thread | None = None

    def serve(self, channel: Channel) -> None:
        """Hand on to the observer, in a thread, until closed."""
        self._channel = channel
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hand on what is there, and let nobody in any more."""
        with suppress(OSError):
            self.path.unlink()
        self._end.close()
        if self._thread is not None:
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
