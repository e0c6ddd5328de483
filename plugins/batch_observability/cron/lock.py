"""
One run of a job at a time: a lock in the state folder that its holder's death sets free.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from batch_observability.private import private_folder

_FOLDER = "locks"


class JobLock:
    """
    The lock of one job on this host. It is this process's alone: no command and no child holds it on.

    Args:
        state: the state folder.
        job: name of the job.
    """

    def __init__(self, state: Path, job: str) -> None:
        self._path = state / _FOLDER / f"{quote(job, safe='')}.lock"
        self._descriptor = -1

    def take(self, *, wait: bool) -> bool:
        """
        Take it; False if another run has it and this one is not to wait.

        Raises:
            OSError: if there can be no lock.
        """
        private_folder(self._path.parent)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        return True

    def holder(self) -> str:
        """Return the process id of who has it, "" if that is not known."""
        with suppress(OSError):
            return os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
        return ""

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor >= 0:
            # Also where a child has the descriptor too.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = -1
