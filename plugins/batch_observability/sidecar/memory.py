"""
Facts of the control group that a process is in: its memory limit, its peak, and whether the kernel killed in it.

A process that was killed for want of memory dies of SIGKILL like any other; only the counter of its group tells.
Linux, cgroup v1 and v2 (the kernel's Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst); inert elsewhere.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 65536
# From the kill to the moment when the process is on its way out, a host without memory may need seconds.
_LOOKS = 4
# v1 writes "unlimited" as the largest number of whole pages, which depends on the size of a page.
_UNLIMITED = 2**60
# include/linux/sched.h; the flags are the 9th field of /proc/PID/stat, the 7th after its name.
_PF_EXITING = 0x4
_FLAGS = 6


@dataclass(frozen=True)
class _Files:
    """What one version of cgroups calls things."""

    kills: str
    limit: str
    peak: str


_V1 = _Files("memory.oom_control", "memory.limit_in_bytes", "memory.max_usage_in_bytes")
_V2 = _Files("memory.events", "memory.max", "memory.peak")


class MemoryLimit:
    """
    The memory limit that a process is under; nothing here ever raises.

    Args:
        pid: the process.
        proc: where procfs is mounted.

    Attributes:
        limit: bytes, the smallest limit of the group and its ancestors; None if there is none.
    """

    def __init__(self, pid: int, *, proc: Path = Path("/proc")) -> None:
        self._proc, self._pid = proc, pid
        self._stat = proc / str(pid) / "stat"
        self._place = ""
        self._files = _V2
        self._groups: list[Path] = []  # the group and its ancestors as far as they are mounted
        self.limit: int | None = None
        self._kills: deque[int] = deque(maxlen=_LOOKS)
        self.follow()
        self.look()

    def follow(self) -> None:
        """Find the group of the process again if it was moved to another."""
        place = _read(self._proc / str(self._pid) / "cgroup")
        # What has died is in no group of its own any more.
        if not place or place == self._place or (self._place and self._is_ending()):
            return
        self._place = place
        self._files, self._groups = next(
            ((files, groups) for files, groups in _hierarchies(self._proc, self._pid) if groups), (_V2, [])
        )
        self.limit = self._smallest_limit()
        self._kills.clear()
        self.look()

    def look(self) -> None:
        """Remember how many processes the kernel has killed in the group; to be called about once a second."""
        # What dies of a kill is not looked at: giving back tens of gigabytes takes longer than two looks.
        kills = self._count_kills()
        if kills is not None and not self._is_ending():
            self._kills.append(kills)

    def killed_by_oom(self) -> bool:
        """
        Whether the kernel has killed in the group about when the process died.

        It is compared with the oldest of the last looks: those after it may have come after the kill, and a kill before
        it was of another process.
        """
        kills = self._count_kills()
        if kills is None:  # the group may have gone with the process
            kills = self._kills[-1] if self._kills else 0
        return bool(self._kills) and kills > self._kills[0]

    def peak(self) -> int | None:
        """Return the most bytes that the group ever held; None where the system does not tell."""
        return _number(_read(self._groups[0] / self._files.peak)) if self._groups else None

    def _count_kills(self) -> int | None:
        return _count_kills(self._groups[0] / self._files.kills) if self._groups else None

    def _is_ending(self) -> bool:
        """Whether the process is on its way out, or gone (proc_pid_stat(5))."""
        # The second field is its name in parentheses, which may hold anything.
        fields = _read(self._stat).rpartition(")")[2].split()
        flags = _number(fields[_FLAGS]) if len(fields) > _FLAGS else None
        return flags is None or bool(flags & _PF_EXITING)

    def _smallest_limit(self) -> int | None:
        limits = [_number(_read(group / self._files.limit)) for group in self._groups]
        return min((limit for limit in limits if limit is not None and limit < _UNLIMITED), default=None)


def _hierarchies(proc: Path, pid: int) -> Iterator[tuple[_Files, list[Path]]]:
    """Yield the groups of a process in each hierarchy that may control its memory, from the inside out."""
    mounts = list(_mounts(proc))
    for line in _read(proc / str(pid) / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        files = _V1 if "memory" in controllers.split(",") else _V2
        if files is _V1 or (number == "0" and not controllers):
            for mounted, root, point in mounts:
                if mounted is files:
                    yield files, list(_groups(files, _below(root, path), point))


def _mounts(proc: Path) -> Iterator[tuple[_Files, str, Path]]:
    """Yield version, root and mount point of each hierarchy that may control memory (proc_pid_mountinfo(5))."""
    for line in _read(proc / "self" / "mountinfo").splitlines():
        mount, _, filesystem = line.partition(" - ")
        fields, kind = mount.split(" "), filesystem.split(" ")
        if len(fields) < 5 or len(kind) < 3:
            continue
        root, point = _unescaped(fields[3]), Path(_unescaped(fields[4]))
        if kind[0] == "cgroup2":
            yield _V2, root, point
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            yield _V1, root, point


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _below(root: str, path: str) -> list[str]:
    """
    Return the parts of a group's path below the root of a mount.

    None where it is not below it: in a container whose mount shows its own group only, that group is the root.
    """
    root_parts = [part for part in root.split("/") if part]
    parts = [part for part in path.split("/") if part]
    if parts[: len(root_parts)] != root_parts or ".." in parts[len(root_parts) :]:
        return []
    return parts[len(root_parts) :]


def _groups(files: _Files, parts: list[str], point: Path) -> Iterator[Path]:
    """Yield the groups where memory is controlled, from that of the process outwards."""
    for depth in range(len(parts), -1, -1):
        group = point.joinpath(*parts[:depth])
        if _count_kills(group / files.kills) is not None:
            yield group


def _count_kills(path: Path) -> int | None:
    """Read the counter of kills from a file of keys and numbers."""
    for line in _read(path).splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return _number(count)
    return None


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def _read(path: Path) -> str:
    """Read a file of the kernel's, which it hands out a page at a time; "" if it cannot be read."""
    chunks = []
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            while chunk := os.read(descriptor, _CHUNK):
                chunks.append(chunk)
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        return ""
    return b"".join(chunks).decode("utf-8", "replace")
