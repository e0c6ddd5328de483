"""
What a command writes, kept beside being passed on: up to a bound in a file that its observer makes log lines of, and
its last bytes in any case.

Whoever passes it on is not kept waiting, and what is kept survives both this process and the observer.
"""

from __future__ import annotations

import os
import time
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TAIL_BYTES = 8192
_NAMES = {1: "stdout", 2: "stderr"}
# How much of it has become log lines stands at its beginning.
HEAD = b"%019d\n"


class Capture:
    """
    The output of one command.

    Args:
        path: of the file.
        most: bytes that are kept in it.
    """

    def __init__(self, path: str, most: int) -> None:
        self._path = path
        self._left = most
        self._descriptor = -1
        self._tail = b""
        self._changing = allocate_lock()
        self.missed = 0

    def listener(self, stream: int) -> Callable[[memoryview], object]:
        """Return what is to be shown each piece that goes to a stream."""
        name = _NAMES[stream]
        return lambda piece: self.hear(name, piece)

    def hear(self, stream: str, piece: memoryview) -> None:
        """Keep what there is room for; count the rest."""
        with self._changing:
            self._tail = (self._tail + bytes(piece[-TAIL_BYTES:]))[-TAIL_BYTES:]
            taken = piece[: self._left]
            self.missed += len(piece) - len(taken)
            if not taken:
                return
            self._left -= len(taken)
            head = f"{stream} {time.time_ns()} {len(taken)} {int(len(taken) < len(piece))}\n".encode()
            try:
                if self._descriptor < 0:
                    self._descriptor = self._open()
                kept = os.writev(self._descriptor, [head, taken]) - len(head)
            except OSError:
                kept = 0
            if kept < len(taken):
                # A disk that is full stays so for now.
                self.missed += len(taken) - max(kept, 0)
                self._left = 0

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        os.write(descriptor, HEAD % len(HEAD % 0))
        return descriptor

    def tail(self) -> bytes:
        """Return what was written last."""
        return self._tail

    def close(self) -> None:
        """Keep nothing more."""
        with self._changing:
            self._left = 0
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
