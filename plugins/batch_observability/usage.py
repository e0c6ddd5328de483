"""
What the system knows of a process and its host: memory, CPU, when it was born. Standard library only.
"""

from __future__ import annotations

import os
import sys


def host_name() -> str:
    """Name of this host, as spans and records carry it."""
    return os.uname().nodename


def process_usage() -> dict[str, float]:
    """CPU seconds and peak memory in bytes of this process; CPU with the children that it has waited for."""
    import resource

    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    # On Linux ru_maxrss survives exec, and after vfork() is that of the process that started this one.
    peak = own.ru_maxrss if sys.platform == "darwin" else high_water_mark(os.getpid())
    return {
        "cpu_s": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
        "memory_peak": peak,
    }


def high_water_mark(pid: int) -> int:
    """Greatest resident memory in bytes that a process ever had; 0 where the system does not tell."""
    text = _read(f"/proc/{pid}/status")
    line = next((line for line in text.splitlines() if line.startswith("VmHWM:")), None)
    return int(line.split()[1]) * 1024 if line else 0


def stat_fields(pid: int) -> list[str]:
    """Return the fields of proc_pid_stat(5) from the third, the state; none without process or /proc."""
    # The second is its name in parentheses, which may hold anything.
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def birth(pid: int) -> str:
    """Return when a living process was started, in the system's own count; "" if there is none, or no /proc."""
    fields = stat_fields(pid)
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123  (pathlib takes long to load)
            return file.read()
    except OSError:
        return ""
