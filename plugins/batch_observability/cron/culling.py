"""
The end of a job that had its time: the command's group, its descendants, and all that carry its run in their
environment, whatever they have become. First they are asked, then they are killed.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from batch_observability.usage import stat_fields

_PARENT, _GROUP = 1, 2


class Culled:
    """
    The processes of a command.

    Args:
        pid: of the command.
        mark: what all of them have in their environment, unless they changed it.
        leads: the command leads a process group of its own.
    """

    def __init__(self, pid: int, mark: str, *, leads: bool) -> None:
        self._pid = pid
        self._mark = os.fsencode(mark)
        self._leads = leads

    def ask(self) -> None:
        """Ask all to end, also those that are stopped."""
        for pid in self.alive():
            _signal(pid, signal.SIGTERM)
            _signal(pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill all; again as long as there are new ones."""
        killed: set[int] = set()
        while rest := self.alive() - killed:
            for pid in rest:
                _signal(pid, signal.SIGKILL)
            killed |= rest

    def alive(self) -> set[int]:
        """Return those that are there now."""
        processes = _processes()
        chosen = {pid for pid, (_, group) in processes.items() if self._leads and group == self._pid}
        chosen |= {pid for pid in processes if pid == self._pid or self._is_marked(pid)}
        while more := {pid for pid, (parent, _) in processes.items() if parent in chosen} - chosen:
            chosen |= more
        return chosen - {os.getpid()}

    def _is_marked(self, pid: int) -> bool:
        try:
            return self._mark in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False


def _processes() -> dict[int, tuple[int, int]]:
    """Return parent and group of each living process."""
    found = {}
    with suppress(OSError):
        for name in os.listdir("/proc"):  # noqa: PTH208  (names are all that is needed)
            if name.isdecimal() and (fields := stat_fields(int(name))) and fields[0] not in ("Z", "X"):
                found[int(name)] = (int(fields[_PARENT]), int(fields[_GROUP]))
    return found


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
