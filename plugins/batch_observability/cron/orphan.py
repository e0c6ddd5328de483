"""
A command whose parent may be killed: still waited for, and its output still taken, so that it can go on.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from batch_observability.sidecar.process import ObservedProcess
from batch_observability.usage import birth

_CHUNK = 1 << 16
_LOOKS_EACH_S = 0.5
# Who inherits it reaps it within milliseconds; before that the system does not tell what it died of.
_REAPED_WITHIN_S = 0.5
_NAMES = {1: "stdout", 2: "stderr"}
_NOTHING_YET = {"cpu_s": 0.0, "memory_peak": 0}


class Orphan:
    """
    The command of a run.

    Args:
        pid: of the command.
        born: when it was started, as `usage.birth` says, "" if it had ended by then.
        pipes: which of its standard streams go to a pipe of `batchobs run`, with the pipe's inode number.
    """

    def __init__(self, pid: int, born: str, pipes: Mapping[str, int]) -> None:
        self._pid = pid
        self._born = born
        self._pipes = {int(stream): inode for stream, inode in pipes.items()}
        self._pidfd: int | None = None
        with suppress(OSError, AttributeError):  # not on macOS, nor before Linux 5.3
            self._pidfd = os.pidfd_open(pid)
        if self._pidfd is not None and birth(pid) not in ("", born):
            # The number is another process's by now. What has no birth has ended, and can still be asked.
            os.close(self._pidfd)
            self._pidfd = None

    @property
    def alive(self) -> bool:
        """Whether the command runs."""
        return bool(self._born) and birth(self._pid) == self._born

    def wait(self, hear: Callable[[str, bytes], object]) -> int | None:
        """
        Wait for the end of the command; return its wait status, None if the system does not tell it.

        Args:
            hear: is given what it writes meanwhile: without a reader it would die of that.
        """
        streams = self._take_over()
        poll = select.poll()
        for descriptor in (*streams, *([] if self._pidfd is None else [self._pidfd])):
            poll.register(descriptor, select.POLLIN)
        while self.alive:
            for descriptor, _ in poll.poll(_LOOKS_EACH_S * 1000):
                if descriptor in streams and not _read(descriptor, streams[descriptor], hear):
                    poll.unregister(descriptor)
                    del streams[descriptor]
        for descriptor, name in streams.items():
            _read(descriptor, name, hear)
        return self._status()

    def _take_over(self) -> dict[int, str]:
        """Be the reader of the pipes whose reader is gone, as far as the system lets us (proc_pid_fd(5))."""
        streams = {}
        for stream, inode in self._pipes.items():
            path = f"/proc/{self._pid}/fd/{stream}"
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                if os.fstat(descriptor).st_ino == inode:
                    streams[descriptor] = _NAMES[stream]
                else:
                    os.close(descriptor)
        return streams

    def _status(self) -> int | None:
        if self._pidfd is None:
            return None
        process = ObservedProcess(self._pid, _NOTHING_YET, self._pidfd)
        give_up = time.monotonic() + _REAPED_WITHIN_S
        while (status := process.wait_status()) is None and time.monotonic() < give_up:
            time.sleep(0.01)
        return status


def _read(descriptor: int, name: str, hear: Callable[[str, bytes], object]) -> bool:
    """Take what is there; whether more may come."""
    try:
        while data := os.read(descriptor, _CHUNK):
            hear(name, data)
    except BlockingIOError:
        return True
    return False
