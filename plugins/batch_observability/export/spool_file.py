"""
One file of the spool: locked by whoever is at it, renamed while it is sent, gone when it was taken.

The lock belongs to the open file and so goes with the process, however that ends.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from batch_observability.export.signals import LOGS, METRICS, TRACES

LINES = ".jsonl"
# Metrics have no ids: of a file that somebody began to send and did not finish, nobody knows what arrived.
SENDING = ".sending"
BROKEN = ".broken"
PARTIAL = ".part"
# Datadog takes no older spans and log records.
_DATADOG_S = 18 * 3600
_DATADOG_TAKES = {("datadog", TRACES), ("agentless", TRACES), ("agentless", LOGS), ("datadog-logs", LOGS)}
# A link, another user's file, a socket. Whatever else keeps a file from being opened may be over in a moment.
_LASTING = (errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO)


class UnreadableError(Exception):
    """A file of the spool cannot be used; the message names it and says why."""


@dataclass
class Entry:
    """
    One file of the spool, locked by this process.

    Attributes:
        target: whom it is for, `LEDGER` for a change of the ledger.
        signal: what it holds; `CHANGE` for the ledger.
        path: where it is.
        descriptor: of the open file; it holds the lock.
    """

    target: str
    signal: str
    path: Path
    descriptor: int

    @classmethod
    def write(cls, path: Path, data: bytes, *, partial: bool = False) -> Self:
        """
        Write a file, with fsync; it is locked. One that is partial is nobody's yet, until it is settled.

        Raises:
            OSError: if it cannot be written; then there is none.
        """
        # Under another name first: a reader never sees half a document.
        unsettled = path.with_name(path.name + PARTIAL)
        descriptor = os.open(unsettled, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            if not partial:
                unsettled.rename(path)
        except OSError:
            os.close(descriptor)
            unsettled.unlink(missing_ok=True)
            raise
        return cls(path.parent.name, signal_of(path), unsettled if partial else path, descriptor)

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """
        Lock a file that waits; None if somebody else is at it, or it is gone.

        Raises:
            UnreadableError: if it is none that may be read; it is set aside where that is possible.
        """
        entry = cls(path.parent.name, signal_of(path), path, -1)
        try:
            entry.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            status = os.fstat(entry.descriptor)
        except OSError as error:
            if error.errno not in _LASTING:
                return None
            entry.set_aside()
            raise UnreadableError(f"{path} cannot be read: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            entry.set_aside()
            raise UnreadableError(f"{path} is no file")
        with suppress(OSError):
            fcntl.flock(entry.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have removed or renamed it since it was opened.
            if os.path.samestat(status, path.lstat()):
                return entry
        entry.release()
        return None

    def settle(self) -> None:
        """
        Let a partial file be one that waits.

        Raises:
            OSError: if it cannot be renamed.
        """
        if self.path.suffix == PARTIAL:
            self.path = self.path.rename(self.path.with_suffix(""))

    @property
    def stem(self) -> str:
        """What all files of one batch have in common."""
        return stem_of(self.path)

    @property
    def time_ns(self) -> int:
        """When it was put here."""
        return time_of(self.path)

    @property
    def half_sent(self) -> bool:
        """Whether somebody began to send it, and it has no ids that would make a second time harmless."""
        return self.path.suffix == SENDING

    @property
    def too_old(self) -> bool:
        """Whether its target takes nothing that old."""
        limited = (self.target, self.signal) in _DATADOG_TAKES
        return limited and time.time_ns() - self.time_ns > _DATADOG_S * 10**9

    def documents(self) -> tuple[list[Any], int]:
        """
        Return its documents, and how many of its lines are none.

        Raises:
            UnreadableError: if there is none at all.
        """
        try:
            with os.fdopen(os.dup(self.descriptor), "rb") as file:
                file.seek(0)
                lines = [line for line in file.read().splitlines() if line.strip()]
        except OSError as error:
            raise UnreadableError(f"{self.path} cannot be read: {error.strerror}") from None
        documents = []
        for line in lines:
            with suppress(ValueError, RecursionError):
                documents.append(json.loads(line))
        if not documents:
            raise UnreadableError(f"{self.path} holds no JSON line")
        return documents, len(lines) - len(documents)

    def begin(self) -> None:
        """
        Say that it is being sent.

        Raises:
            OSError: if that cannot be said, or it could not be removed later; then it must not be sent.
        """
        if not os.access(self.path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, "may only be read", str(self.path.parent))
        if self.signal == METRICS and not self.half_sent:
            self._rename(self.path.with_name(self.path.name + SENDING))
            sync_folder(self.path.parent)

    def refused(self) -> None:
        """Say that none of it has arrived; it stays locked."""
        if self.half_sent:
            with suppress(OSError):
                self._rename(self.path.with_name(self.path.name.removesuffix(SENDING)))

    def remove(self) -> None:
        """Forget it: somebody has taken it, or nobody may have it any more."""
        with suppress(OSError):
            self.path.unlink()
        self.release()

    def set_aside(self) -> None:
        """Keep it for a person to look at; nobody tries it again."""
        if self.path.suffix != BROKEN:
            with suppress(OSError):
                self._rename(self.path.with_name(self.path.name + BROKEN))
        self.release()

    def release(self) -> None:
        """Let others have it."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            # A process that is being started has a copy of the descriptor, until it becomes another program.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _rename(self, path: Path) -> None:
        self.path.rename(path)
        self.path = path


def signal_of(path: Path) -> str:
    """Return the signal that a file's name says, whatever its state."""
    return path.name.removesuffix(PARTIAL).removesuffix(SENDING).removesuffix(LINES).rpartition(".")[2]


def stem_of(path: Path) -> str:
    """Return what the names of all files of one batch have in common."""
    return path.name.removesuffix(PARTIAL).removesuffix(SENDING).removesuffix(LINES).rpartition(".")[0]


def time_of(path: Path) -> int:
    """Return when a file was put into the spool, as a Unix time in nanoseconds: its name begins with it."""
    return int(path.name[:20])


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
