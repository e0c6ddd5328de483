"""
The standard streams of a job: which of them a pump stands in, and which the command has as they are.

A pipe, a socket and /dev/null behave to a command as a pipe of ours does, so what goes there can be listened to. A
terminal, a file and any other device do not (a full disk, a position, a size): these are handed on, and a file is read
beside the command.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat

from batch_observability.cron.bare import suppress

STDIN, STDOUT, STDERR = 0, 1, 2
_PIPE_BYTES = 1 << 20


class Pipe:
    """A pipe in the place of one stream, or of two that are the same: `outlet` is where it goes to."""

    def __init__(self, reads: int, writes: int, outlet: int, stands_for: tuple[int, ...]) -> None:
        self.reads = reads
        self.writes = writes
        self.outlet = outlet
        self.stands_for = stands_for
        self.inode = os.fstat(writes).st_ino


class Followed:
    """A file that a stream goes to, open for reading, and where the command begins in it."""

    def __init__(self, descriptor: int, stream: int, begins: int) -> None:
        self.descriptor = descriptor
        self.stream = stream
        self.begins = begins

    def size(self) -> int:
        """Return how long the file is now."""
        return os.fstat(self.descriptor).st_size

    def tail(self, most: int) -> bytes:
        """Return what the command wrote last, so many bytes at most."""
        size = self.size()
        # Somebody may have cut it, as log rotation does.
        begins = max(self.begins if self.begins <= size else 0, size - most)
        return os.pread(self.descriptor, size - begins, begins)


class Streams:
    """What stands in for the standard streams of one command, and which files they go to."""

    def __init__(self, pipes: list[Pipe], followed: list[Followed]) -> None:
        self.pipes = pipes
        self.followed = followed


def hold_places() -> None:
    """Put something where a standard stream is closed, so that nothing of ours gets its number; no child has it."""
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free, and not inherited.
            os.open(os.devnull, os.O_RDWR)


def let_go(descriptor: int) -> None:
    """Close a standard stream of ours: who is at its other end is to see what the command does with it."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


def inherited() -> list[int]:
    """Return what was inherited for the command's sake, beside its standard streams: all that is not ours."""
    found = []
    try:
        names = os.listdir("/proc/self/fd")  # noqa: PTH208  (names are all that is needed)
    except OSError:
        return []
    for name in names:
        try:
            if int(name) > STDERR and os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            # That of the listing itself.
            continue
    return found


def arrange() -> Streams:
    """Make the pipes, and open the files, that the streams of this process call for."""
    out, err = _kind(STDOUT), _kind(STDERR)
    same = out == err and out != "" and _same(STDOUT, STDERR)
    both, one, other = (STDOUT, STDERR), (STDOUT,), (STDERR,)
    pipes: list[Pipe] = []
    followed: list[Followed] = []
    for stands_for in (both,) if same else (one, other):
        stream, kind = stands_for[0], (err if stands_for is other else out)
        if kind == "pipe":
            pipes.append(_pipe(stream, stands_for))
        elif kind == "file" and (file := _follow(stream)):
            followed.append(file)
    return Streams(pipes, followed)


def _kind(descriptor: int) -> str:
    """Return `pipe`, `file`, or "" for what is left alone."""
    status = os.fstat(descriptor)
    if not os.get_inheritable(descriptor):
        # Closed, for the command.
        return ""
    if stat.S_ISREG(status.st_mode):
        return "file"
    if stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode):
        return "" if is_broken(descriptor) else "pipe"
    null = os.stat(os.devnull)  # noqa: PTH116  (a status, not a path)
    return "pipe" if stat.S_ISCHR(status.st_mode) and status.st_rdev == null.st_rdev else ""


def is_broken(descriptor: int) -> bool:
    """Whether nobody will read what is written there."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def _pipe(outlet: int, stands_for: tuple[int, ...]) -> Pipe:
    reads, writes = os.pipe()
    with suppress(OSError, AttributeError):  # a user may have only so many pages in pipes; not on macOS
        fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return Pipe(reads, writes, outlet, stands_for)


def _follow(stream: int) -> Followed | None:
    try:
        path = f"/proc/self/fd/{stream}"
        descriptor = os.open(path if os.path.exists(path) else f"/dev/fd/{stream}", os.O_RDONLY | os.O_NOCTTY)  # noqa: PTH110
        if not os.path.samestat(os.fstat(descriptor), os.fstat(stream)):
            os.close(descriptor)
            return None
        appends = fcntl.fcntl(stream, fcntl.F_GETFL) & os.O_APPEND
        begins = os.fstat(stream).st_size if appends else os.lseek(stream, 0, os.SEEK_CUR)
    except OSError:
        return None
    return Followed(descriptor, stream, begins)


def _same(one: int, other: int) -> bool:
    """Whether two descriptors are of one pipe, or one file: then they share a pipe, or are read once."""
    return os.path.samestat(os.fstat(one), os.fstat(other))
