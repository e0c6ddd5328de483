"""
CPU time and memory of sidecars, which are nobody's children: looked at in /proc, and waited for.

While a sidecar is watched, this process is the one that orphans fall to, so that the system tells it at the end
what the sidecar used in all, to the microsecond. What a sidecar's own child uses is looked at only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.live.processes import LiveError, Processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

# include/uapi/linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_MAIN = "sidecar/__main__.py"


@dataclass(frozen=True)
class Look:
    """A sidecar at a moment of `time.perf_counter`; memory in bytes, CPU in seconds."""

    at: float
    memory: int
    cpu_s: float


@dataclass
class SidecarUse:
    """
    What one sidecar used: all looks at it, and its own totals.

    Attributes:
        child_cpu_s, child_memory_peak: of the child that tells the start of a run that is longer than a second.
        ended: when it was gone, by `time.perf_counter`.
    """

    looks: list[Look] = field(default_factory=list)
    cpu_s: float = 0.0
    memory_peak: int = 0
    child_cpu_s: float = 0.0
    child_memory_peak: int = 0
    ended: float = 0.0

    def before(self, moment: float) -> Look:
        """Returns the last look before a moment."""
        return max((look for look in self.looks if look.at < moment), key=lambda look: look.at)


def sidecars(processes: Processes) -> list[psutil.Process]:
    """Returns the sidecars of the family that still run, and children of theirs."""
    return [process for process in processes.survivors() if any(_MAIN in part for part in _command(process))]


def cpu_s(process: psutil.Process) -> float:
    """Returns what a process has used so far; nothing if it is gone."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


class SidecarWatch:
    """Watches the one sidecar that starts next; call `look` often, and `finish` after the task has ended."""

    def __init__(self, processes: Processes) -> None:
        """Looks for nothing yet."""
        self.use = SidecarUse()
        self._processes = processes
        self._sidecar: psutil.Process | None = None

    def look(self) -> None:
        """Finds the sidecar, or looks at it and its child."""
        if self._sidecar is None:
            self._sidecar = next(iter(sidecars(self._processes)), None)
            return
        with contextlib.suppress(psutil.Error):
            memory = self._sidecar.memory_info().rss
            # The memory of a process that has just ended is no memory.
            if memory:
                self.use.looks.append(Look(time.perf_counter(), memory, cpu_s(self._sidecar)))
        for child in _children(self._sidecar.pid):
            with contextlib.suppress(psutil.Error):
                self.use.child_cpu_s = max(self.use.child_cpu_s, cpu_s(child))
                self.use.child_memory_peak = max(self.use.child_memory_peak, child.memory_info().rss)

    def finish(self) -> SidecarUse:
        """Waits for the end of the sidecar; returns what it used."""
        sidecar = self._sidecar
        if sidecar is None:
            raise LiveError("no sidecar was seen")

        def ended() -> bool:
            self.look()
            pid, _status, usage = os.wait4(sidecar.pid, os.WNOHANG)
            if pid:
                self.use.cpu_s = usage.ru_utime + usage.ru_stime
                self.use.memory_peak = usage.ru_maxrss * 1024
                self.use.ended = time.perf_counter()
            return bool(pid)

        wait_until(ended, "the sidecar ends", 30, every=0.003)
        return self.use


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Makes this process the parent of orphans below it, inside of the block."""
    _adopt(True)
    try:
        yield
    finally:
        _adopt(False)


def _adopt(switch: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(switch), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _children(pid: int) -> list[psutil.Process]:
    """Returns the children of a process's main thread, without a look at all processes of the system."""
    try:
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    found = []
    for child in pids:
        with contextlib.suppress(psutil.Error):
            found.append(psutil.Process(int(child)))
    return found


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
