"""
The observed process seen from outside: memory and CPU of its tree, the moment of its death, and what it died of.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from contextlib import suppress
from dataclasses import dataclass

from batch_observability.usage import high_water_mark, stat_fields

# include/uapi/linux/pidfd.h: exit information of a process that is not our child, from Linux 6.15.
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO = struct.Struct("=QQ12I")
_EXIT_CODE = 13


@dataclass
class Death:
    """How a process ended: a signal, an exit code, or neither where the system does not tell."""

    signal: str = ""
    exit_code: int | None = None

    @classmethod
    def from_wait_status(cls, status: int) -> Death:
        """Read a status as `waitpid` gives it."""
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            with suppress(ValueError):
                return cls(signal=signal.Signals(number).name)
            return cls(signal=f"signal {number}")
        return cls(exit_code=os.WEXITSTATUS(status))


class ObservedProcess:
    """
    A process and its descendants, sampled from outside.

    Args:
        pid: the process; it need not be a child.
        usage: what it said of itself when the run began; its CPU seconds until then do not count.
        pidfd: a descriptor of it, None where there is none.
    """

    def __init__(self, pid: int, usage: dict[str, float], pidfd: int | None = None) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._cpu_before_s = usage["cpu_s"]
        self.cpu_s = 0.0
        self.memory_peak = int(usage["memory_peak"])

    def sample(self) -> None:
        """Look at the tree now. A process that is gone keeps its last values."""
        import psutil

        memory, cpu_s = 0, 0.0
        try:
            process = psutil.Process(self.pid)
            times = process.cpu_times()
            cpu_s = times.user + times.system + times.children_user + times.children_system
            memory = process.memory_info().rss
            descendants = process.children(recursive=True)
        except psutil.Error:
            return
        for child in descendants:
            with suppress(psutil.Error):
                times = child.cpu_times()
                cpu_s += times.user + times.system
                memory += child.memory_info().rss
        self.add_usage(cpu_s, max(memory, high_water_mark(self.pid)))

    def add_usage(self, cpu_s: float, memory_peak: float) -> None:
        """Take in what the process said of itself, or what was sampled; both only grow."""
        self.cpu_s = max(self.cpu_s, cpu_s - self._cpu_before_s)
        self.memory_peak = max(self.memory_peak, int(memory_peak))

    def death(self) -> Death:
        """What the process died of, as far as the system tells somebody who is not its parent."""
        status = self.wait_status()
        return Death() if status is None else Death.from_wait_status(status)

    def wait_status(self) -> int | None:
        """Return the same as `waitpid` gives it, None if the system does not tell."""
        status = self._status_after_reaping()
        return self._status_before_reaping() if status is None else status

    def _status_after_reaping(self) -> int | None:
        if self.pidfd is None:
            return None
        info = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, *([0] * 13)))
        try:
            fcntl.ioctl(self.pidfd, _PIDFD_GET_INFO, info)
        except OSError:
            return None
        fields = _PIDFD_INFO.unpack(info)
        return int(fields[_EXIT_CODE]) if fields[0] & _PIDFD_INFO_EXIT else None

    def _status_before_reaping(self) -> int | None:
        """Read the wait status of a zombie, the 52nd field of its stat (proc_pid_stat(5))."""
        stat = stat_fields(self.pid)
        return int(stat[49]) if stat[:1] == ["Z"] else None

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return stat_fields(self.pid)[:1] != ["Z"]
