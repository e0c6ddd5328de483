"""
Memory and CPU of a process, as the system counts them. Standard library only.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path


def process_usage() -> dict[str, float]:
    """CPU seconds and peak memory in bytes of this process; CPU with the children that it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    # On Linux ru_maxrss survives exec, and after vfork() is that of the process that started this one.
    peak = own.ru_maxrss if sys.platform == "darwin" else high_water_mark(os.getpid())
    return {
        "cpu_s": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
        "memory_peak": peak,
    }


def high_water_mark(pid: int) -> int:
    """Greatest resident memory in bytes that a process ever had; 0 where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith("VmHWM:")), None)
    return int(line.split()[1]) * 1024 if line else 0
